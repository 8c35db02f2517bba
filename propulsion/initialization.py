"""The first value of the offsets δ."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

INITS = ("ones", "zeros", "normal", "uniform")

_SPREAD = 1e-3
"""Relative deviation of the scales of several vectors at the start."""


def initial_delta(
    num_vectors: int, width: int, degree: int, init: str, seed: int, module: str
) -> torch.Tensor:
    """Offsets δ = z - 1 to start from; the same for the same arguments on every rank.

    Several vectors that start alike would get alike gradients and stay alike, so with `init="ones"`
    each z_i^k starts about 0.1 % around 1.

    Args:
        num_vectors: m.
        width: d_out of the layer.
        degree: the power k.
        init: "ones"; or "zeros", "normal" (mean 0, deviation 1), "uniform" (0 to 1) for z.
        seed: of the random numbers.
        module: name of the layer, so that each draws its own.

    Returns:
        Shape (num_vectors, width), fp32, on the CPU.
    """
    import torch

    shape = (num_vectors, width)
    generator = torch.Generator(device="cpu").manual_seed(zlib.crc32(f"{seed} {module}".encode()))
    delta = torch.empty(shape, dtype=torch.float32, device="cpu")
    if init == "zeros":
        return delta.fill_(-1.0)
    if init == "normal":
        return delta.normal_(-1.0, 1.0, generator=generator)
    if init == "uniform":
        return delta.uniform_(-1.0, 0.0, generator=generator)
    if num_vectors == 1:
        return delta.zero_()
    return delta.normal_(0.0, _SPREAD / degree, generator=generator)
