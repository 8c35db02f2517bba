"""Bytes that autograd keeps between the forward and the backward pass.

The forward pass is run on tensors that have shapes and dtypes but no data, and what autograd saves
is added up: the true sum for any architecture, without its memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from trainer.adapted import AdaptedModel


@dataclass(frozen=True)
class Activations:
    """Bytes per rank that backward needs of one forward pass."""

    kept: int
    """Without gradient checkpointing."""
    checkpointed: int
    """With it: the inputs of all blocks, what the largest block keeps while it is computed again,
    and what is kept outside the blocks."""


def trace_activations(
    adapted: AdaptedModel, rows: Sequence[int], max_length: int, target_length: int | None = None
) -> Activations:
    """What one forward pass saves for backward, its log-probabilities in fp32 included.

    Args:
        adapted: a model on the meta device; it cannot be used any more afterwards.
        rows: job of each row of the pass.
        max_length: tokens of each row.
        target_length: tokens that the decoder of an encoder-decoder reads.

    Raises:
        RuntimeError: the model looks at values, which are not there, to decide what to compute.
    """
    mode = FakeTensorMode()
    _give_fake_data(adapted.model, mode)
    model = adapted.model.train()
    saved = _Saved({storage._cdata for storage in _storages(model)})
    with mode, _watch_blocks(model, saved), adapted.mixed(rows, range(len(adapted.names))):
        ids = torch.zeros(len(rows), max_length, dtype=torch.int64)
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if target_length is not None:
            inputs["decoder_input_ids"] = ids.new_zeros(len(rows), target_length)
        with torch.autograd.graph.saved_tensors_hooks(saved.add, lambda tensor: tensor):
            outputs = model(**inputs)
            logits = outputs.start_logits if "start_logits" in outputs else outputs.logits
            torch.log_softmax(logits.float(), dim=-1)
    return Activations(saved.total, saved.checkpointed)


@dataclass
class _Saved:
    weights: set[int]
    total: int = 0
    in_blocks: list[int] = field(default_factory=list)
    block_inputs: int = 0
    seen: dict[int, Any] = field(default_factory=dict)

    def add(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        # Storages are kept, so that no two have the same address.
        if storage._cdata not in self.seen and storage._cdata not in self.weights:
            self.seen[storage._cdata] = storage
            self.total += storage.nbytes()
        return tensor

    @property
    def checkpointed(self) -> int:
        outside = self.total - sum(self.in_blocks)
        return outside + self.block_inputs + max(self.in_blocks, default=0)


@contextmanager
def _watch_blocks(model: nn.Module, saved: _Saved) -> Iterator[None]:
    """Take note of what the blocks save that gradient checkpointing computes again."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    starts: list[int] = []

    def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        starts.append(saved.total)
        hidden = args[0] if args else kwargs.get("hidden_states")
        if isinstance(hidden, torch.Tensor):
            saved.block_inputs += hidden.nbytes

    def leave(*_: Any) -> None:
        saved.in_blocks.append(saved.total - starts.pop())

    handles = []
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            handles.append(module.register_forward_pre_hook(enter, with_kwargs=True))
            handles.append(module.register_forward_hook(leave))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _storages(model: nn.Module) -> Iterator[Any]:
    for tensor in (*model.parameters(), *model.buffers()):
        yield tensor.untyped_storage()


def _give_fake_data(model: nn.Module, mode: FakeTensorMode) -> None:
    """Move a model from the meta device to a CPU that does not compute.

    On the meta device itself attention would take another kernel than on a GPU, one that keeps
    every score.
    """
    moved: dict[torch.Tensor, torch.Tensor] = {}
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    if tensor not in moved:
                        moved[tensor] = _fake(tensor, mode)
                    tensors[name] = moved[tensor]


def _fake(tensor: torch.Tensor, mode: FakeTensorMode) -> torch.Tensor:
    with mode:
        fake = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(fake, requires_grad=tensor.requires_grad)
    return fake
