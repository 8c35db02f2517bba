"""`torch.ops.propulsion.scale_act_mul` and `scale_act_mul_out`."""

from __future__ import annotations

from pathlib import Path

import torch

from propulsion.kernels.registry import Kernel, Operator
from propulsion.kernels.scale_act_mul import reference

_ARGUMENTS = "Tensor x, Tensor bank, Tensor slots, Tensor? negative_slots, int activation"


def _half(x: torch.Tensor, *_: object) -> torch.Tensor:
    return x.new_empty(x.shape[0], x.shape[1] // 2)


def _nothing(*_: object) -> None:
    pass


KERNEL = Kernel(
    Path(__file__).parent,
    Operator(f"scale_act_mul({_ARGUMENTS}) -> Tensor", reference.scale_act_mul, _half),
    Operator(
        f"scale_act_mul_out({_ARGUMENTS}, Tensor(a!) out) -> ()",
        reference.scale_act_mul_out,
        _nothing,
    ),
)
