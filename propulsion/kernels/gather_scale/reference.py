"""Each token's own scale, in torch: what every kernel of this folder must equal."""

from __future__ import annotations

import torch


def gather_scale_(
    x: torch.Tensor,
    bank: torch.Tensor,
    slots: torch.Tensor,
    negative_slots: torch.Tensor | None = None,
) -> torch.Tensor:
    """See `propulsion.kernels.gather_scale.gather_scale_`."""
    factor = _factor(x, bank, slots)
    if negative_slots is not None:
        factor = torch.where(x < 0, _factor(x, bank, negative_slots), factor)
    return x.mul_(factor)


def _factor(x: torch.Tensor, bank: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
    factor = 1.0 + bank.index_select(0, slots).float()
    return factor if x.ndim == 2 else factor[:, None]
