"""`torch.ops.propulsion.gather_scale` and `gather_scale_`."""

from __future__ import annotations

from pathlib import Path

import torch

from propulsion.kernels.gather_scale import reference
from propulsion.kernels.registry import Kernel, Operator

_BANK = "Tensor bank, Tensor slots, Tensor? negative_slots"


def _nothing(*_: object) -> None:
    pass


def _like_x(x: torch.Tensor, *_: object) -> torch.Tensor:
    return torch.empty_like(x)


KERNEL = Kernel(
    Path(__file__).parent,
    Operator(f"gather_scale_(Tensor(a!) x, {_BANK}) -> ()", reference.gather_scale_, _nothing),
    Operator(f"gather_scale(Tensor x, {_BANK}) -> Tensor", reference.gather_scale, _like_x),
)
