"""Scale, activation and product of a gated MLP: y = act(gate ⊙ s_gate) ⊙ (up ⊙ s_up)."""

from __future__ import annotations

import torch

from propulsion.kernels.activations import NUMBERS, ActivationName
from propulsion.kernels.scale_act_mul.operator import KERNEL

__all__ = ["KERNEL", "scale_act_mul"]


def scale_act_mul(
    x: torch.Tensor,
    bank: torch.Tensor,
    slots: torch.Tensor,
    negative_slots: torch.Tensor | None = None,
    *,
    activation: ActivationName = "silu",
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Scale gate and up, and multiply the activated gate with up.

    Args:
        x: gate and up side by side, shape (num_tokens, 2 · width), fp32, bf16 or fp16.
        bank: s - 1 of gate and up, shape (num_slots, 2 · width), as in `gather_scale_`.
        slots: as in `gather_scale_`.
        negative_slots: as in `gather_scale_`; the sign is that before the activation.
        activation: of the gate.
        out: where the result goes, shape (num_tokens, width), dtype of `x`, not overlapping it.

    Returns:
        `out`, or a new tensor; arithmetic in fp32, rounded once.

    Raises:
        RuntimeError: as `gather_scale_`.
    """
    if out is not None:
        torch.ops.propulsion.scale_act_mul_out(
            x, bank, slots, negative_slots, NUMBERS[activation], out
        )
        return out
    result: torch.Tensor = torch.ops.propulsion.scale_act_mul(
        x, bank, slots, negative_slots, NUMBERS[activation]
    )
    return result
