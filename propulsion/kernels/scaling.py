"""V ⊙ s of every token in torch: what the references of all kernels begin with."""

from __future__ import annotations

import torch


def factor(
    x: torch.Tensor,
    bank: torch.Tensor,
    slots: torch.Tensor,
    negative_slots: torch.Tensor | None = None,
) -> torch.Tensor:
    """What each value of x is multiplied by, fp32, in a shape that broadcasts with x.

    Args:
        x: shape (num_tokens, width) or (num_tokens, repeats, width).
        bank: s - 1 of every slot, shape (num_rows, width); row 0 is zeros.
        slots: row of each token, shape (num_tokens,), int32; below 0 is the base as well.
        negative_slots: row for a token's negative values.
    """
    of_positive = _of_slots(x, bank, slots)
    if negative_slots is None:
        return of_positive
    return torch.where(x < 0, _of_slots(x, bank, negative_slots), of_positive)


def scaled(
    x: torch.Tensor,
    bank: torch.Tensor,
    slots: torch.Tensor,
    negative_slots: torch.Tensor | None = None,
) -> torch.Tensor:
    """x times its factor, fp32."""
    return x.float() * factor(x, bank, slots, negative_slots)


def _of_slots(x: torch.Tensor, bank: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
    scales = 1.0 + bank.index_select(0, slots.clamp_min(0)).float()
    return scales if x.ndim == 2 else scales[:, None]
