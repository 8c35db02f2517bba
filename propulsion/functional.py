"""The arithmetic of Propulsion: offsets to scales, and the scaling itself."""

from __future__ import annotations

from typing import Any

import torch


def effective_scale(delta: torch.Tensor, degree: int) -> torch.Tensor:
    """Scale s = mean_i (1 + δ_i)^k that a layer's output is multiplied by (Eq. 1-3).

    Args:
        delta: offsets δ = z - 1, shape (num_vectors, d_out), any float dtype.
        degree: the power k.

    Returns:
        s, shape (d_out,), fp32, differentiable. The power is taken in fp32 whatever δ's dtype:
        in bf16 a z near 1 would move in steps of 0.4 to 0.8 %.
    """
    return (1.0 + delta.float()).pow(degree).mean(dim=0)


def scale_offset(delta: torch.Tensor, degree: int) -> torch.Tensor:
    """s - 1 of `effective_scale`, shape (d_out,), fp32, rounded once from fp64.

    This is a row of the z-bank: zeros are the base model.
    """
    return ((1.0 + delta.double()).pow(degree).mean(dim=0) - 1.0).float()


def scale_output(output: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """V ⊙ s in fp32, returned in V's dtype; autograd saves V alone.

    Args:
        output: a layer's output V, shape (..., d_out).
        scale: s, shape (d_out,), fp32.
    """
    result: torch.Tensor = _ScaleOutput.apply(output, scale)  # type: ignore[no-untyped-call]
    return result


class _ScaleOutput(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, output: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(output, scale)
        return (output * scale).to(output.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        output, scale = ctx.saved_tensors
        (grad,) = grads
        grad_output = (grad * scale).to(output.dtype) if ctx.needs_input_grad[0] else None
        grad_scale = None
        if ctx.needs_input_grad[1]:
            grad_scale = (grad.float() * output).flatten(0, -2).sum(dim=0)
        return grad_output, grad_scale
