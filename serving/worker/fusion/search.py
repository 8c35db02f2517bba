"""Finds what reads the output of a linear layer, by running the model once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from serving import vllm_compat, vllm_compat_fusion
from serving.worker.fusion.activation import Activation
from serving.worker.fusion.fusion import Fusion
from serving.worker.fusion.norm import AddNorm
from serving.worker.fusion.rotary import Rotary

logger = logging.getLogger(__name__)

KINDS: tuple[type[Fusion], ...] = (Activation, Rotary, AddNorm)
NUM_TOKENS = 2
"""Enough to tell rows from columns."""


def find_fusions(model: nn.Module, vllm_config: Any, device: torch.device) -> dict[str, Fusion]:
    """The modules that can scale what a linear layer gives them, by the path of the layer.

    Names tell nothing here: the model is run once on two tokens. A module may scale a layer's
    output where it is given that very memory and nothing else reads it.

    Args:
        model: as loaded: LoRA's layers cannot run before a batch is set.
        vllm_config: of the engine.
        device: where the model is.
    """
    kinds = KINDS
    if vllm_config.speculative_config is not None:
        # EAGLE's drafter reads the residual between layers, and is set up after this run.
        kinds = tuple(kind for kind in KINDS if kind is not AddNorm)

    def run() -> None:
        vllm_compat_fusion.run_once(model, vllm_config, NUM_TOKENS, device)

    return search(model, run, kinds)


def search(
    model: nn.Module, run: Callable[[], object], kinds: tuple[type[Fusion], ...] = KINDS
) -> dict[str, Fusion]:
    """As `find_fusions`, of a model that `run` runs, and of these kinds."""
    linears = {
        module: path
        for path, module in model.named_modules()
        if isinstance(module, vllm_compat.LinearBase)
    }
    watch = _Watch(linears, kinds)
    try:
        with watch.calls(), watch:
            run()
    except Exception as error:
        logger.info(
            "%s takes other inputs than tokens: every layer is scaled in a pass of its own (%s)",
            type(model).__name__,
            error,
        )
        return {}
    return watch.fusions()


@dataclass(eq=False)
class _Output:
    """What a linear layer returned."""

    path: str
    tensor: torch.Tensor
    fusion: Fusion | None = None
    reader: tuple[nn.Module, nn.Module] | None = None
    is_read_elsewhere: bool = False
    is_overwritten: bool = False


class _Watch(TorchDispatchMode):
    """Sees every call of a module and every operator."""

    def __init__(self, linears: dict[nn.Module, str], kinds: tuple[type[Fusion], ...]):
        super().__init__()
        self._linears = linears
        self._kinds = kinds
        self._outputs: list[_Output] = []
        # Outputs by their memory, which stays theirs since `_outputs` keeps them alive.
        self._by_memory: dict[int, _Output] = {}
        self._calling: list[nn.Module] = []
        self._taken: list[_Output] = []

    def fusions(self) -> dict[str, Fusion]:
        paths = [output.path for output in self._outputs]
        readers = [output.reader for output in self._outputs]
        return {
            output.path: output.fusion
            for output in self._outputs
            if output.fusion is not None
            and not output.is_read_elsewhere
            and paths.count(output.path) == readers.count(output.reader) == 1
        }

    @contextmanager
    def calls(self) -> Iterator[None]:
        """While open, modules tell when they are called."""
        handles = [
            hooks.register_module_forward_pre_hook(self._enter),
            hooks.register_module_forward_hook(self._leave),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        parent = self._calling[-1] if self._calling else module
        self._calling.append(module)
        for output in self._outputs_in(inputs):
            if output.reader is not None:
                continue
            found = (kind.of(parent, module, output.tensor, inputs) for kind in self._kinds)
            output.fusion = next(filter(None, found), None)
            if output.fusion is not None:
                output.reader = (parent, module)
                self._taken.append(output)

    def _leave(self, module: nn.Module, inputs: tuple[Any, ...], result: Any) -> None:
        self._calling.pop()
        for output in [o for o in self._taken if o.reader and o.reader[1] is module]:
            self._taken.remove(output)
            assert output.fusion is not None
            output.is_overwritten = output.fusion.in_place or output in self._outputs_in(result)
        if module in self._linears:
            tensor = result[0] if isinstance(result, tuple) else result
            output = _Output(self._linears[module], tensor)
            self._outputs.append(output)
            self._by_memory[_memory(tensor)] = output

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for output in self._outputs_in((args, kwargs)):
            if output in self._taken or output.is_overwritten:
                continue
            is_view = not func._schema.is_mutable and all(
                _memory(tensor) == _memory(output.tensor) for tensor in _tensors(result)
            )
            output.is_read_elsewhere |= not is_view
        return result

    def _outputs_in(self, values: Any) -> list[_Output]:
        memories = {_memory(tensor) for tensor in _tensors(values)}
        return [self._by_memory[memory] for memory in memories if memory in self._by_memory]


def _tensors(values: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]


def _memory(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
