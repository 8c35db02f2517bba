"""How much of a GPU's arithmetic a step uses (MFU)."""

from __future__ import annotations

import torch

_PEAK = {
    "H200": 989e12,
    "H100": 989e12,
    "H800": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10": 125e12,
}
"""Dense bf16 or fp16 operations per second, from the makers' data sheets."""


def model_flops(num_parameters: int, num_tokens: int) -> float:
    """Operations of a step over a frozen base: 2 a weight and token forward, 2 backward.

    The gradient of the weights, another 2, is not computed; what checkpointing computes again is
    not counted, as is usual.
    """
    return 4.0 * num_parameters * num_tokens


def peak_flops() -> float | None:
    """Of this process's GPU in 16 bits; None for one that is not known, or none."""
    if not torch.cuda.is_available():
        return None
    name = torch.cuda.get_device_name()
    return next((peak for part, peak in _PEAK.items() if part in name), None)
