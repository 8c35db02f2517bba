"""Scale and GELU, in torch: what every implementation in this folder must equal."""

from __future__ import annotations

import torch

from propulsion.kernels.activations import FUNCTIONS
from propulsion.kernels.scaling import scaled


def scale_gelu_(
    x: torch.Tensor,
    bank: torch.Tensor,
    slots: torch.Tensor,
    negative_slots: torch.Tensor | None,
    activation: int,
) -> None:
    """See `propulsion.kernels.scale_gelu.scale_gelu_`."""
    x.copy_(FUNCTIONS[activation](scaled(x, bank, slots, negative_slots)))


def scale_gelu(
    x: torch.Tensor,
    bank: torch.Tensor,
    slots: torch.Tensor,
    negative_slots: torch.Tensor | None,
    activation: int,
) -> torch.Tensor:
    """See `propulsion.kernels.scale_gelu.scale_gelu`."""
    out = torch.empty_like(x)
    return out.copy_(FUNCTIONS[activation](scaled(x, bank, slots, negative_slots)))
