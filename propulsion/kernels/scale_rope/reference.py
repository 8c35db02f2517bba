"""Scale and rotary embedding, in torch: what every implementation in this folder must equal."""

from __future__ import annotations

import torch

from propulsion.kernels.scaling import scaled


def scale_rope(
    qkv: torch.Tensor,
    bank: torch.Tensor,
    slots: torch.Tensor,
    negative_slots: torch.Tensor | None,
    positions: torch.Tensor,
    cos_sin: torch.Tensor,
    heads: int,
    head_size: int,
    is_neox: bool,
) -> torch.Tensor:
    """See `propulsion.kernels.scale_rope.scale_rope`; `heads` are those of queries and keys."""
    values = scaled(qkv, bank, slots, negative_slots)
    by_head = values[:, : heads * head_size].view(len(qkv), heads, head_size)
    rotated = by_head[..., : cos_sin.shape[1]]
    cosine, sine = cos_sin[positions].float()[:, None].chunk(2, dim=-1)
    if is_neox:
        a, b = rotated.chunk(2, dim=-1)
    else:
        a, b = rotated[..., ::2], rotated[..., 1::2]
    first, second = a * cosine - b * sine, b * cosine + a * sine
    a.copy_(first)
    b.copy_(second)
    return torch.empty_like(qkv).copy_(values)


def scale_rope_(
    qkv: torch.Tensor,
    bank: torch.Tensor,
    slots: torch.Tensor,
    negative_slots: torch.Tensor | None,
    positions: torch.Tensor,
    cos_sin: torch.Tensor,
    heads: int,
    head_size: int,
    is_neox: bool,
) -> None:
    """`scale_rope` in place."""
    qkv.copy_(
        scale_rope(qkv, bank, slots, negative_slots, positions, cos_sin, heads, head_size, is_neox)
    )
