"""Scale and GELU of an MLP without a gate (BLOOM, GPT-J): y = gelu(x ⊙ s)."""

from __future__ import annotations

from typing import Literal

import torch

from propulsion.kernels.activations import NUMBERS
from propulsion.kernels.scale_gelu.operator import KERNEL

__all__ = ["KERNEL", "scale_gelu", "scale_gelu_"]


def scale_gelu_(
    x: torch.Tensor,
    bank: torch.Tensor,
    slots: torch.Tensor,
    negative_slots: torch.Tensor | None = None,
    *,
    activation: Literal["gelu", "gelu_tanh"] = "gelu_tanh",
) -> torch.Tensor:
    """Scale as `gather_scale_` does, and apply GELU, in place.

    Args:
        x: output of the up projection, shape (num_tokens, width) or (num_tokens, repeats, width),
            fp32, bf16 or fp16.
        bank: s - 1, as in `gather_scale_`.
        slots: as in `gather_scale_`.
        negative_slots: as in `gather_scale_`; the sign is that of `x`.
        activation: `gelu` is exact, `gelu_tanh` the approximation that BLOOM and GPT-J use.

    Returns:
        `x`; arithmetic in fp32, rounded once.

    Raises:
        RuntimeError: as `gather_scale_`.
    """
    torch.ops.propulsion.scale_gelu_(x, bank, slots, negative_slots, NUMBERS[activation])
    return x


def scale_gelu(
    x: torch.Tensor,
    bank: torch.Tensor,
    slots: torch.Tensor,
    negative_slots: torch.Tensor | None = None,
    *,
    activation: Literal["gelu", "gelu_tanh"] = "gelu_tanh",
) -> torch.Tensor:
    """`scale_gelu_` into a new tensor."""
    result: torch.Tensor = torch.ops.propulsion.scale_gelu(
        x, bank, slots, negative_slots, NUMBERS[activation]
    )
    return result
