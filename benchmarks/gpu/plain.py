"""The elementwise passes of a decoder without adapters, as torch compiles them: a second base.

A base that ran our kernels alone would hide what they cost beside others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from benchmarks.gpu.family import Pair

if TYPE_CHECKING:
    from benchmarks.gpu.decoder import Decoder


def rope(
    qkv: torch.Tensor,
    positions: torch.Tensor,
    cos_sin: torch.Tensor,
    heads: int,
    head: int,
    is_neox: bool,
) -> torch.Tensor:
    """Packed queries, keys and values with queries and keys turned, whole heads or their start."""
    rotary = cos_sin.shape[1]
    turned, values = qkv.split((2 * heads * head, heads * head), 1)
    turned, rest = turned.unflatten(1, (2 * heads, head)).split((rotary, head - rotary), 2)
    # Pairs lie half the turned values apart, or are neighbours.
    pairs, pair = ((2, rotary // 2), 2) if is_neox else ((rotary // 2, 2), 3)
    a, b = turned.float().unflatten(2, pairs).unbind(pair)
    cosine, sine = cos_sin[positions].float()[:, None].chunk(2, -1)
    turned = torch.stack((a * cosine - b * sine, b * cosine + a * sine), pair).flatten(2)
    return torch.cat((torch.cat((turned.to(qkv.dtype), rest), 2).flatten(1), values), 1)


def act_mul(gate_up: torch.Tensor) -> torch.Tensor:
    """silu(gate) ⊙ up."""
    gate, up = gate_up.float().chunk(2, -1)
    return (F.silu(gate) * up).to(gate_up.dtype)


def gelu(up: torch.Tensor) -> torch.Tensor:
    """GELU as tanh approximates it."""
    return F.gelu(up.float(), approximate="tanh").to(up.dtype)


def add_norm(
    terms: tuple[torch.Tensor, ...],
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    epsilon: float,
) -> Pair:
    """LayerNorm of the sum, or RMSNorm where there is no bias, and the sum."""
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    sums = total.float()
    if bias is not None:
        normed = F.layer_norm(sums, weight.shape, weight.float(), bias.float(), epsilon)
    else:
        inverse = torch.rsqrt(sums.square().mean(-1, keepdim=True) + epsilon)
        normed = sums * inverse * weight.float()
    return normed.to(total.dtype), total


@dataclass(frozen=True)
class Plain:
    """The four functions above, compiled or not."""

    rope: Callable[..., torch.Tensor] = rope
    act_mul: Callable[..., torch.Tensor] = act_mul
    gelu: Callable[..., torch.Tensor] = gelu
    add_norm: Callable[..., Pair] = add_norm


@cache
def compiled(backend: str = "inductor") -> Plain:
    """Made anew for each shape that they are called with, or an error: never run as they are."""
    functions = (rope, act_mul, gelu, add_norm)
    options = {"dynamic": False, "fullgraph": True, "backend": backend}
    return Plain(*(torch.compile(function, **options) for function in functions))


class PlainPasses:
    """`Passes` without adapters."""

    def __init__(self, decoder: Decoder, plain: Plain):
        self._decoder = decoder
        self._plain = plain

    def scale(self, layer: int, name: str, x: torch.Tensor) -> torch.Tensor:
        return x

    def rope(self, layer: int, qkv: torch.Tensor) -> torch.Tensor:
        decoder, shape = self._decoder, self._decoder.shape
        heads = (shape.heads, shape.head, shape.family.is_neox)
        return self._plain.rope(qkv, decoder.positions, decoder.cos_sin, *heads)

    def act_mul(self, layer: int, gate_up: torch.Tensor) -> torch.Tensor:
        return self._plain.act_mul(gate_up)

    def gelu(self, layer: int, up: torch.Tensor) -> torch.Tensor:
        return self._plain.gelu(up)

    def first_norm(self, x: torch.Tensor) -> Pair:
        return self._norm_of(x, torch.zeros_like(x))

    def add_norm(self, layer: int, name: str, x: torch.Tensor, residual: torch.Tensor) -> Pair:
        return self._norm_of(residual, x)

    def add_both_norm(
        self, layer: int, attended: torch.Tensor, mlp: torch.Tensor, residual: torch.Tensor
    ) -> Pair:
        return self._norm_of(residual, attended, mlp)

    def _norm_of(self, *terms: torch.Tensor) -> Pair:
        decoder = self._decoder
        epsilon = decoder.shape.family.epsilon
        return self._plain.add_norm(terms, decoder.norm_weight, decoder.norm_bias, epsilon)
