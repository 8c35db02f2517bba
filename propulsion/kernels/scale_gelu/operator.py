"""`torch.ops.propulsion.scale_gelu` and `scale_gelu_`."""

from __future__ import annotations

from pathlib import Path

import torch

from propulsion.kernels.registry import Kernel, Operator
from propulsion.kernels.scale_gelu import reference

_REST = "Tensor bank, Tensor slots, Tensor? negative_slots, int activation"


def _nothing(*_: object) -> None:
    pass


def _like_x(x: torch.Tensor, *_: object) -> torch.Tensor:
    return torch.empty_like(x)


KERNEL = Kernel(
    Path(__file__).parent,
    Operator(f"scale_gelu_(Tensor(a!) x, {_REST}) -> ()", reference.scale_gelu_, _nothing),
    Operator(f"scale_gelu(Tensor x, {_REST}) -> Tensor", reference.scale_gelu, _like_x),
)
