"""Scale of packed queries, keys and values, and the rotary embedding, in one pass."""

from __future__ import annotations

import torch

from propulsion.kernels.scale_rope.operator import KERNEL

__all__ = ["KERNEL", "scale_rope", "scale_rope_"]


def scale_rope_(
    qkv: torch.Tensor,
    bank: torch.Tensor,
    slots: torch.Tensor,
    positions: torch.Tensor,
    cos_sin: torch.Tensor,
    negative_slots: torch.Tensor | None = None,
    *,
    num_heads: int,
    num_kv_heads: int,
    head_size: int,
    is_neox: bool = True,
) -> torch.Tensor:
    """Scale queries, keys and values, and turn queries and keys by their position, in place.

    Args:
        qkv: output of the packed projection, shape (num_tokens, (num_heads + num_kv_heads) ·
            head_size + value width), fp32, bf16 or fp16: queries, keys, then values of any width,
            0 included.
        bank: s - 1, as wide as `qkv`, as in `gather_scale_`.
        slots: as in `gather_scale_`.
        positions: shape (num_tokens,), int64, rows of `cos_sin`.
        cos_sin: cosines, then sines, of every position, shape (positions, rotary_dim), dtype of
            `qkv`; rotary_dim is even, and the rest of a head is scaled alone.
        negative_slots: as in `gather_scale_`; the sign is that before the rotation.
        num_heads: of queries.
        num_kv_heads: of keys.
        head_size: of queries and keys.
        is_neox: whether value i is paired with i + rotary_dim / 2 (LLaMA, NeoX), else neighbours
            are pairs (GPT-J).

    Returns:
        `qkv`; arithmetic in fp32, rounded once.

    Raises:
        RuntimeError: as `gather_scale_`; on a CPU also where a position is not in `cos_sin`.
    """
    torch.ops.propulsion.scale_rope_(
        qkv,
        bank,
        slots,
        negative_slots,
        positions,
        cos_sin,
        num_heads + num_kv_heads,
        head_size,
        is_neox,
    )
    return qkv


def scale_rope(
    qkv: torch.Tensor,
    bank: torch.Tensor,
    slots: torch.Tensor,
    positions: torch.Tensor,
    cos_sin: torch.Tensor,
    negative_slots: torch.Tensor | None = None,
    *,
    num_heads: int,
    num_kv_heads: int,
    head_size: int,
    is_neox: bool = True,
) -> torch.Tensor:
    """`scale_rope_` into a new tensor."""
    result: torch.Tensor = torch.ops.propulsion.scale_rope(
        qkv,
        bank,
        slots,
        negative_slots,
        positions,
        cos_sin,
        num_heads + num_kv_heads,
        head_size,
        is_neox,
    )
    return result
