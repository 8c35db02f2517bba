"""Each token's own scale in one pass: y[t, :] = x[t, :] ⊙ (1 + bank[slots[t], :])."""

from __future__ import annotations

import torch


def gather_scale(x: torch.Tensor, bank: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
    """Scale a batch in which every token names its own adapter.

    Args:
        x: activations, shape (num_tokens, d_out), any float dtype.
        bank: s - 1 of every slot, shape (num_slots, d_out), fp32; a row of zeros is the base.
        slots: row of `bank` for each token, shape (num_tokens,), int32 or int64.

    Returns:
        The scaled activations, shape and dtype of `x`; arithmetic in fp32.
    """
    return (x * (1.0 + bank.index_select(0, slots))).to(x.dtype)


def gather_scale_(x: torch.Tensor, bank: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
    """`gather_scale` in place; returns `x`."""
    return x.mul_(1.0 + bank.index_select(0, slots))
