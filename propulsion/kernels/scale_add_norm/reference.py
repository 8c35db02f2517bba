"""Scale, residual and norm, in torch: what every implementation in this folder must equal."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from propulsion.kernels.scaling import scaled


def scale_add_norm(
    x: torch.Tensor,
    residual: torch.Tensor,
    bank: torch.Tensor,
    slots: torch.Tensor,
    negative_slots: torch.Tensor | None,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    epsilon: float,
    is_layer_norm: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """See `propulsion.kernels.scale_add_norm.scale_add_norm`."""
    total = torch.empty_like(residual)
    total.copy_(residual.float() + scaled(x, bank, slots, negative_slots))
    # The norm is that of the residual as it is stored.
    sums, width = total.float(), (x.shape[1],)
    of_bias = None if bias is None else bias.float()
    if is_layer_norm:
        normed = F.layer_norm(sums, width, weight.float(), of_bias, epsilon)
    else:
        normed = F.rms_norm(sums, width, weight.float(), epsilon)
        if of_bias is not None:
            normed = normed + of_bias
    return torch.empty_like(x).copy_(normed), total


def scale_add_norm_(
    x: torch.Tensor,
    residual: torch.Tensor,
    bank: torch.Tensor,
    slots: torch.Tensor,
    negative_slots: torch.Tensor | None,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    epsilon: float,
    is_layer_norm: bool,
) -> None:
    """`scale_add_norm` in place."""
    normed, total = scale_add_norm(
        x, residual, bank, slots, negative_slots, weight, bias, epsilon, is_layer_norm
    )
    x.copy_(normed)
    residual.copy_(total)
