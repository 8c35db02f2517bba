"""The activation of an MLP with the scale of the projection before it: one pass instead of two."""

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from propulsion.kernels import scale_act_mul, scale_gelu
from serving import vllm_compat
from serving.worker.hooks import LayerScale

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Activation:
    """Where a model applies an activation to what a linear layer gives.

    Attributes:
        parent: the module that has both.
        name: of the activation there.
        kernel: that scales and activates: `scale_act_mul` or `scale_gelu`.
    """

    parent: nn.Module
    name: str
    kernel: Callable[..., torch.Tensor]

    def scale_by(self, scale: LayerScale, *, captured: bool) -> None:
        """Have the activation scale what it is given; `captured` is as in `hooks.attach`."""
        original = getattr(self.parent, self.name)
        setattr(self.parent, self.name, ScaledActivation(original, scale, self.kernel, captured))


class ScaledActivation(nn.Module):
    """Stands in for a model's activation, whose input is the output of a scaled layer.

    Args:
        original: what it stands in for, and calls while the batch does not scale the layer.
        scale: of the layer.
        kernel: as in `Activation`.
        captured: as in `hooks.attach`.
    """

    def __init__(
        self,
        original: nn.Module,
        scale: LayerScale,
        kernel: Callable[..., torch.Tensor],
        captured: bool,
    ):
        super().__init__()
        self.original = original
        self.scale = scale
        self._kernel = kernel
        self._captured = captured

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self._captured or self.scale.active:
            return self._kernel(x, *self.scale.operands(len(x)))
        activated: torch.Tensor = self.original(x)
        return activated


def find_activations(
    model: nn.Module, dtype: torch.dtype, device: torch.device
) -> dict[str, Activation]:
    """The activations of a model that we have kernels for, by the path of the layer before each.

    That a layer comes before an activation is not taken from names: each MLP is run once on ones,
    to see whether the activation is given the very tensor that the layer returns.

    Args:
        model: as loaded: LoRA's layers cannot run before a batch is set.
        dtype: of its activations.
        device: where it is.
    """
    found = {}
    for path, parent in model.named_modules():
        children = dict(parent.named_children())
        activations = {n: k for n, m in children.items() if (k := vllm_compat.activation(m))}
        layers = {n: m for n, m in children.items() if _may_come_first(m)}
        sizes = {layer.input_size for layer in layers.values()}
        if not activations or len(sizes) != 1:
            continue
        ones = torch.ones(1, sizes.pop(), dtype=dtype, device=device)
        for leaf, name in _handed_over(parent, layers, activations, ones):
            is_gated, function = activations[name]
            kernel = partial(scale_act_mul if is_gated else scale_gelu, activation=function)
            found[f"{path}.{leaf}".lstrip(".")] = Activation(parent, name, kernel)
    return found


def _may_come_first(module: nn.Module) -> bool:
    return isinstance(module, vllm_compat.LinearBase) and not isinstance(
        module, vllm_compat.RowParallelLinear
    )


def _handed_over(
    parent: nn.Module, layers: Collection[str], activations: Collection[str], x: torch.Tensor
) -> list[tuple[str, str]]:
    """Pairs of a layer and the activation that is given what it returns, and nothing else."""
    seen: dict[str, list[Any]] = {name: [] for name in (*layers, *activations)}

    def keep_output(name: str, module: Any, args: Any, output: Any) -> None:
        seen[name].append(output[0] if isinstance(output, tuple) else output)

    def keep_input(name: str, module: Any, args: Any) -> None:
        seen[name].append(args[0])

    handles = [
        *(getattr(parent, n).register_forward_hook(partial(keep_output, n)) for n in layers),
        *(
            getattr(parent, n).register_forward_pre_hook(partial(keep_input, n))
            for n in activations
        ),
    ]
    try:
        with torch.inference_mode():
            parent(x)
    except Exception as error:
        # It takes other inputs, so it is no MLP as we know them.
        logger.debug("%s is scaled in passes of its own: %s", type(parent).__name__, error)
        return []
    finally:
        for handle in handles:
            handle.remove()
    return [
        (layer, activation)
        for layer in layers
        for activation in activations
        if len(seen[layer]) == len(seen[activation]) == 1 and seen[layer][0] is seen[activation][0]
    ]
