"""Each token's own scale in one pass: y[t, :] = x[t, :] ⊙ (1 + bank[slots[t], :])."""

from __future__ import annotations

from pathlib import Path

import torch

from propulsion.kernels.compiler import load_kernel
from propulsion.kernels.gather_scale import reference

_CPU_SOURCE = Path(__file__).with_name("cpu.cpp")


def gather_scale_(
    x: torch.Tensor,
    bank: torch.Tensor,
    slots: torch.Tensor,
    negative_slots: torch.Tensor | None = None,
) -> torch.Tensor:
    """Scale, in place, a batch in which every token names its own adapter.

    On a CPU by a C++ operator where it could be compiled (`native_on_cpu`), else in torch.

    Args:
        x: activations, shape (num_tokens, d_out) or (num_tokens, heads, d_out), any float dtype.
        bank: s - 1 of every slot, shape (num_slots, d_out), float dtype; row 0 is zeros, the base.
        slots: row of `bank` for each token, shape (num_tokens,), int32.
        negative_slots: where given, the row for a token's negative values, shape (num_tokens,),
            int32: adapters pooled by max or min have two scales (design.md section 2).

    Returns:
        `x`; arithmetic in fp32, rounded once.
    """
    if torch.compiler.is_compiling() or x.is_cuda or not native_on_cpu():
        return reference.gather_scale_(x, bank, slots, negative_slots)
    torch.ops.propulsion.gather_scale_(x, bank, slots, negative_slots)
    return x


def gather_scale(
    x: torch.Tensor,
    bank: torch.Tensor,
    slots: torch.Tensor,
    negative_slots: torch.Tensor | None = None,
) -> torch.Tensor:
    """`gather_scale_` on a copy of `x`."""
    return gather_scale_(x.clone(), bank, slots, negative_slots)


def native_on_cpu() -> bool:
    """Whether the C++ operator is there; compiles it on the first call (seconds, once)."""
    return load_kernel(_CPU_SOURCE)
