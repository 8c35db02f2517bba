"""`torch.ops.propulsion.scale_rope` and `scale_rope_`."""

from __future__ import annotations

from pathlib import Path

import torch

from propulsion.kernels.registry import Kernel, Operator
from propulsion.kernels.scale_rope import reference

_REST = (
    "Tensor bank, Tensor slots, Tensor? negative_slots, Tensor positions, Tensor cos_sin, "
    "int heads, int head_size, bool is_neox"
)


def _nothing(*_: object) -> None:
    pass


def _like_qkv(qkv: torch.Tensor, *_: object) -> torch.Tensor:
    return torch.empty_like(qkv)


KERNEL = Kernel(
    Path(__file__).parent,
    Operator(f"scale_rope_(Tensor(a!) qkv, {_REST}) -> ()", reference.scale_rope_, _nothing),
    Operator(f"scale_rope(Tensor qkv, {_REST}) -> Tensor", reference.scale_rope, _like_qkv),
)
