"""Scale, residual sum and the next norm in one pass: r += x ⊙ s; x = norm(r)."""

from __future__ import annotations

from typing import Literal

import torch

from propulsion.kernels.scale_add_norm.operator import KERNEL

__all__ = ["KERNEL", "scale_add_norm", "scale_add_norm_"]


def scale_add_norm_(
    x: torch.Tensor,
    residual: torch.Tensor,
    bank: torch.Tensor,
    slots: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    negative_slots: torch.Tensor | None = None,
    *,
    epsilon: float = 1e-6,
    norm: Literal["rms", "layer"] = "rms",
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale a projection's output, add it to the residual, and norm the sum, in place.

    Args:
        x: output of the attention's or the MLP's last projection, shape (num_tokens, width), fp32,
            bf16 or fp16; becomes the norm's output.
        residual: like `x`; becomes the sum.
        bank: s - 1, as in `gather_scale_`.
        slots: as in `gather_scale_`.
        weight: of the norm, shape (width,), dtype of `x`.
        bias: of the norm, like `weight`, or None.
        negative_slots: as in `gather_scale_`; the sign is that of `x`.
        epsilon: added to the mean square, or to the variance.
        norm: RMSNorm or LayerNorm.

    Returns:
        `x` and `residual`; arithmetic in fp32. The sum is rounded as the residual is stored, and
        the norm is that of the rounded sum, as where the two are apart.

    Raises:
        RuntimeError: as `gather_scale_`.
    """
    torch.ops.propulsion.scale_add_norm_(
        x, residual, bank, slots, negative_slots, weight, bias, epsilon, norm == "layer"
    )
    return x, residual


def scale_add_norm(
    x: torch.Tensor,
    residual: torch.Tensor,
    bank: torch.Tensor,
    slots: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    negative_slots: torch.Tensor | None = None,
    *,
    epsilon: float = 1e-6,
    norm: Literal["rms", "layer"] = "rms",
) -> tuple[torch.Tensor, torch.Tensor]:
    """`scale_add_norm_` into new tensors."""
    normed, total = torch.ops.propulsion.scale_add_norm(
        x, residual, bank, slots, negative_slots, weight, bias, epsilon, norm == "layer"
    )
    return normed, total
