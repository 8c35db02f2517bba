"""Scale, activation and product, in torch: what every implementation here must equal."""

from __future__ import annotations

import torch

from propulsion.kernels.activations import FUNCTIONS
from propulsion.kernels.scaling import scaled


def scale_act_mul(
    x: torch.Tensor,
    bank: torch.Tensor,
    slots: torch.Tensor,
    negative_slots: torch.Tensor | None,
    activation: int,
) -> torch.Tensor:
    """See `propulsion.kernels.scale_act_mul.scale_act_mul`."""
    gate, up = scaled(x, bank, slots, negative_slots).chunk(2, dim=-1)
    return (FUNCTIONS[activation](gate) * up).to(x.dtype)


def scale_act_mul_out(
    x: torch.Tensor,
    bank: torch.Tensor,
    slots: torch.Tensor,
    negative_slots: torch.Tensor | None,
    activation: int,
    out: torch.Tensor,
) -> None:
    """`scale_act_mul` into `out`."""
    out.copy_(scale_act_mul(x, bank, slots, negative_slots, activation))
