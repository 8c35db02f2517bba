"""Each token's own scale in one pass: y[t, :] = x[t, :] ⊙ (1 + bank[slots[t], :])."""

from __future__ import annotations

import torch

from propulsion.kernels.gather_scale.operator import KERNEL

__all__ = ["KERNEL", "gather_scale", "gather_scale_"]


def gather_scale_(
    x: torch.Tensor,
    bank: torch.Tensor,
    slots: torch.Tensor,
    negative_slots: torch.Tensor | None = None,
) -> torch.Tensor:
    """Scale, in place, a batch in which every token names its own adapter.

    Args:
        x: activations, shape (num_tokens, d_out) or (num_tokens, heads, d_out), fp32, bf16 or fp16,
            the last dimension contiguous.
        bank: s - 1 of every slot, shape (num_slots, d_out), fp32, bf16 or fp16; a view of a wider
            bank is read where it lies. Row 0 is zeros, the base.
        slots: row of `bank` for each token, shape (num_tokens,), int32; 0 or below is the base.
        negative_slots: where given, the row for a token's negative values, shape (num_tokens,),
            int32: adapters pooled by max or min have two scales.

    Returns:
        `x`; arithmetic in fp32, rounded once.

    Raises:
        RuntimeError: shapes or dtypes do not fit, or, on a CPU, a slot is not in the bank. On a GPU
            nothing can be raised for a slot: one beyond the bank is the base.
    """
    torch.ops.propulsion.gather_scale_(x, bank, slots, negative_slots)
    return x


def gather_scale(
    x: torch.Tensor,
    bank: torch.Tensor,
    slots: torch.Tensor,
    negative_slots: torch.Tensor | None = None,
) -> torch.Tensor:
    """`gather_scale_` into a new tensor: one read of `x`, one write of the result."""
    result: torch.Tensor = torch.ops.propulsion.gather_scale(x, bank, slots, negative_slots)
    return result
