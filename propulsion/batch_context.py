"""Hands a mixed batch to the layers for the time of a forward pass."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from peft.utils import AuxiliaryTrainingWrapper, ModulesToSaveWrapper
from torch import nn

from propulsion.layer import PropulsionLayer
from propulsion.mixed_batch import MixedBatch
from propulsion.mixed_heads import mixed_head
from propulsion.registration import register_with_peft

_CHECKPOINT = "_gradient_checkpointing_func"
"""Where transformers keeps the function that checkpoints a block."""


@contextmanager
def mixed_forward(model: nn.Module, batch: MixedBatch) -> Generator[None]:
    """Let the layers of `model` work on `batch`, also when checkpointing runs them again."""
    with ExitStack() as stack:
        stack.enter_context(_in_layers(model, batch))
        for module in model.modules():
            if isinstance(module, ModulesToSaveWrapper):
                vars(module)["forward"] = partial(mixed_head, module, batch)
                stack.callback(vars(module).pop, "forward")
            elif isinstance(module, AuxiliaryTrainingWrapper):
                hook = partial(_give_names, batch)
                stack.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)
            checkpoint = vars(module).get(_CHECKPOINT)
            if checkpoint is not None:
                for_batch = partial(_checkpoint, checkpoint, module, batch)
                setattr(module, _CHECKPOINT, for_batch)
                stack.callback(setattr, module, _CHECKPOINT, checkpoint)
        yield


@contextmanager
def _in_layers(model: nn.Module, batch: MixedBatch) -> Generator[None]:
    before = {m: m.mixed_batch for m in model.modules() if isinstance(m, PropulsionLayer)}
    for layer in before:
        layer.mixed_batch = batch
    try:
        yield
    finally:
        for layer, old in before.items():
            layer.mixed_batch = old


def _checkpoint(
    checkpoint: Callable[..., Any],
    block: nn.Module,
    batch: MixedBatch,
    forward: Callable[..., Any],
    *args: Any,
    **kwargs: Any,
) -> Any:
    # Backward computes the block again when the forward pass, and its context, are long over.
    def forward_batch(*inputs: Any, **options: Any) -> Any:
        with _in_layers(block, batch):
            return forward(*inputs, **options)

    return checkpoint(forward_batch, *args, **kwargs)


def _give_names(
    batch: MixedBatch, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return args, {**kwargs, "adapter_names": batch.adapter_names}


register_with_peft()
