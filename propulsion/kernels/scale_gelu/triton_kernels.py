"""`scale_gelu` in Triton."""

from __future__ import annotations

import torch

from propulsion.kernels.triton_rows import scale_rows


def scale_gelu_(
    x: torch.Tensor,
    bank: torch.Tensor,
    slots: torch.Tensor,
    negative_slots: torch.Tensor | None,
    activation: int,
) -> None:
    """The operator `scale_gelu_`."""
    scale_rows(x, x, bank, slots, negative_slots, activation)


def scale_gelu(
    x: torch.Tensor,
    bank: torch.Tensor,
    slots: torch.Tensor,
    negative_slots: torch.Tensor | None,
    activation: int,
) -> torch.Tensor:
    """The operator `scale_gelu`."""
    out = torch.empty_like(x)
    scale_rows(x, out, bank, slots, negative_slots, activation)
    return out
