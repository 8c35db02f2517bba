"""From a saved factor z to the offset δ = z - 1 that an adapter stores."""

import torch


def offset_of(z: torch.Tensor) -> torch.Tensor:
    """δ = z - 1, computed in fp64 and stored in fp32; same shape.

    What a layer applies is z' = 1 + δ in fp32. For z that fp32 can hold (so also fp16 and bf16):

    - 1/2 ≤ z ≤ 2^24: δ is exact and z' = z. Up to 2 this is Sterbenz's lemma; above it, z - 1 is a
      whole multiple of the spacing of z, and no larger than z.
    - 0 ≤ z < 1/2: |δ - (z - 1)| ≤ 2^-25. δ lies in [-1, -1/2], where fp32 steps by 2^-24.
    - z < 0 or z > 2^24: |δ - (z - 1)| ≤ 2^-24 |z - 1|, the rounding of fp32.

    For |z| ≤ 2^23 the sum 1 + δ adds no error of its own, so |z' - z| is |δ - (z - 1)|.
    """
    return (z.double() - 1.0).float()
