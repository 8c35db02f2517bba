"""Each token's own scale, in torch: what every implementation in this folder must equal."""

from __future__ import annotations

import torch

from propulsion.kernels.scaling import factor


def gather_scale_(
    x: torch.Tensor,
    bank: torch.Tensor,
    slots: torch.Tensor,
    negative_slots: torch.Tensor | None = None,
) -> None:
    """See `propulsion.kernels.gather_scale.gather_scale_`."""
    x.mul_(factor(x, bank, slots, negative_slots))


def gather_scale(
    x: torch.Tensor,
    bank: torch.Tensor,
    slots: torch.Tensor,
    negative_slots: torch.Tensor | None = None,
) -> torch.Tensor:
    """See `propulsion.kernels.gather_scale.gather_scale`."""
    out = torch.empty_like(x)
    return torch.mul(x, factor(x, bank, slots, negative_slots), out=out)
