"""The arithmetic of Propulsion: from offsets δ to the effective scale of a layer's output."""

from __future__ import annotations

import math
from typing import Literal

import torch

Pooling = Literal["mean", "max", "min", "l2"]


def effective_scale(
    delta: torch.Tensor, degree: int | torch.Tensor, pooling: Pooling = "mean"
) -> torch.Tensor:
    """What m pooled vectors multiply a layer's output by (Eq. 1-3; multi-propulsion).

    With p_i = (1 + δ_i)^k, pooling the outputs V ⊙ p_i is scaling V:

    - mean: by mean_i p_i;
    - l2: by sqrt(mean_i p_i²), which leaves V its sign;
    - max: by max_i p_i where V ≥ 0 and by min_i p_i where V < 0;
    - min: by min_i p_i where V ≥ 0 and by max_i p_i where V < 0.

    Args:
        delta: offsets δ = z - 1, shape (..., num_vectors, d_out), any float dtype.
        degree: the power k, or a tensor of them that broadcasts with `delta`.
        pooling: how the outputs of several vectors become one.

    Returns:
        Shape (..., rows, d_out), fp32, differentiable; rows is 1, or 2 for max and min over
        several vectors: the scale where V ≥ 0, then the scale where V < 0. The power is taken in
        fp32 whatever δ's dtype: in bf16 a z near 1 would move in steps of 0.4 to 0.8 %.
    """
    return _pool((1.0 + delta.float()).pow(degree), pooling)


def scale_offset(delta: torch.Tensor, degree: int, pooling: Pooling = "mean") -> torch.Tensor:
    """s - 1 of `effective_scale`, shape (rows, d_out), fp32, rounded once from fp64.

    These are rows of the z-bank: zeros are the base model.
    """
    return (_pool((1.0 + delta.double()).pow(degree), pooling) - 1.0).float()


def _pool(powers: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    num_vectors = powers.shape[-2]
    if pooling == "l2":
        # Unlike sqrt(mean(p²)), the norm has a gradient of 0 where every vector is 0.
        norm: torch.Tensor = torch.linalg.vector_norm(powers, dim=-2, keepdim=True)
        return norm / math.sqrt(num_vectors)
    if num_vectors == 1:
        return powers
    if pooling == "mean":
        return powers.mean(dim=-2, keepdim=True)
    largest, smallest = powers.amax(dim=-2), powers.amin(dim=-2)
    pair = (largest, smallest) if pooling == "max" else (smallest, largest)
    return torch.stack(pair, dim=-2)
