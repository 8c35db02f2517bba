"""`gather_scale` in Triton."""

from __future__ import annotations

import torch

from propulsion.kernels.triton_rows import scale_rows


def gather_scale_(
    x: torch.Tensor, bank: torch.Tensor, slots: torch.Tensor, negative_slots: torch.Tensor | None
) -> None:
    """The operator `gather_scale_`."""
    scale_rows(x, x, bank, slots, negative_slots)


def gather_scale(
    x: torch.Tensor, bank: torch.Tensor, slots: torch.Tensor, negative_slots: torch.Tensor | None
) -> torch.Tensor:
    """The operator `gather_scale`."""
    out = torch.empty_like(x)
    scale_rows(x, out, bank, slots, negative_slots)
    return out
