"""The elementwise passes of a decoder without adapters, as torch compiles them: a second base.

A base that ran our kernels alone would hide what they cost beside others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch.nn import functional as F


def rope(
    qkv: torch.Tensor, positions: torch.Tensor, cos_sin: torch.Tensor, heads: int, head: int
) -> torch.Tensor:
    """Packed queries, keys and values with queries and keys turned, as NeoX and LLaMA do."""
    width = 2 * heads * head
    a, b = qkv[:, :width].view(len(qkv), 2 * heads, 2, head // 2).float().unbind(2)
    cosine, sine = cos_sin[positions].float()[:, None].chunk(2, -1)
    turned = torch.stack((a * cosine - b * sine, b * cosine + a * sine), 2)
    return torch.cat((turned.to(qkv.dtype).view(len(qkv), width), qkv[:, width:]), 1)


def act_mul(gate_up: torch.Tensor) -> torch.Tensor:
    """silu(gate) ⊙ up."""
    gate, up = gate_up.float().chunk(2, -1)
    return (F.silu(gate) * up).to(gate_up.dtype)


def add_norm(
    x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """RMSNorm of the sum, and the sum."""
    total = x + residual
    sums = total.float()
    inverse = torch.rsqrt(sums.square().mean(-1, keepdim=True) + 1e-6)
    return (sums * inverse * weight.float()).to(x.dtype), total


@dataclass(frozen=True)
class Plain:
    """The three passes, compiled or not."""

    rope: Callable[..., torch.Tensor]
    act_mul: Callable[..., torch.Tensor]
    add_norm: Callable[..., tuple[torch.Tensor, torch.Tensor]]


@cache
def compiled() -> Plain:
    """Made anew for each of the few shapes that they are called with."""
    rope_, act_mul_, add_norm_ = (
        torch.compile(function, dynamic=False) for function in (rope, act_mul, add_norm)
    )
    return Plain(rope_, act_mul_, add_norm_)
