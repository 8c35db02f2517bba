"""`torch.ops.propulsion.scale_add_norm` and `scale_add_norm_`."""

from __future__ import annotations

from pathlib import Path

import torch

from propulsion.kernels.registry import Kernel, Operator
from propulsion.kernels.scale_add_norm import reference

_REST = (
    "Tensor bank, Tensor slots, Tensor? negative_slots, Tensor weight, Tensor? bias, "
    "float epsilon, bool is_layer_norm"
)


def _nothing(*_: object) -> None:
    pass


def _like_both(
    x: torch.Tensor, residual: torch.Tensor, *_: object
) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.empty_like(x), torch.empty_like(residual)


KERNEL = Kernel(
    Path(__file__).parent,
    Operator(
        f"scale_add_norm_(Tensor(a!) x, Tensor(b!) residual, {_REST}) -> ()",
        reference.scale_add_norm_,
        _nothing,
    ),
    Operator(
        f"scale_add_norm(Tensor x, Tensor residual, {_REST}) -> (Tensor, Tensor)",
        reference.scale_add_norm,
        _like_both,
    ),
)
