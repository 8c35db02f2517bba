"""The differentiable operation, by the best kernels there are; it saves V or its result."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch

from propulsion.kernels.scale_by_slot import reference, tiled
from propulsion.kernels.scale_by_slot.operator import KERNEL

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def scale_by_slot(
    values: torch.Tensor,
    scales: torch.Tensor,
    slots: torch.Tensor | None = None,
    *,
    saves_result: bool = False,
) -> torch.Tensor:
    """V ⊙ s[slot], differentiable in V and s; autograd saves V, the scales and the slots.

    Args:
        values: V, shape (..., d), any float dtype.
        scales: s of each adapter, shape (num_slots, rows, d), fp32. With 2 rows the first holds
            where V ≥ 0 and the second where V < 0.
        slots: adapter of each group of rows of V, shape (num_groups,), int64: with V seen as
            (num_rows, d), group i is the i-th of num_groups equal runs of consecutive rows. So a
            batch of sequences takes one slot per sample, and packed tokens one each. None: all of
            V is scaled alike, and num_slots is 1.
        saves_result: save V' = V ⊙ s instead of V. The gradient of s is then Σ g ⊙ V' / s, and 0
            where s is 0. It costs no memory where the next operation saves V' anyway, as attention,
            activations and products do. Not for 2 rows, not in fp16, which has too few exponents
            for the way back, and not where the model changes V' in place.

    Returns:
        Shape and dtype of `values`; arithmetic in fp32.
    """
    if not torch.is_grad_enabled() or torch.compiler.is_compiling():
        # The compiler fuses plain operations with what stands around them.
        return reference.scale(values, scales, slots)
    result: torch.Tensor = _ScaleBySlot.apply(values, scales, slots, saves_result)  # type: ignore[no-untyped-call]
    return result


class _ScaleBySlot(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        values: torch.Tensor,
        scales: torch.Tensor,
        slots: torch.Tensor | None,
        saves_result: bool,
    ) -> torch.Tensor:
        result: torch.Tensor = _kernels(values, scales).scale(values, scales, slots)
        return result

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        values, scales, slots, ctx.saves_result = inputs
        ctx.save_for_backward(output if ctx.saves_result else values, scales, slots)

    @staticmethod
    def backward(
        ctx: Any, *grads: torch.Tensor
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, None, None]:
        saved, scales, slots = ctx.saved_tensors
        grad_values, grad_scales = _kernels(saved, scales, grads[0]).scale_backward(
            grads[0], saved, scales, slots, ctx.needs_input_grad[0], ctx.needs_input_grad[1]
        )
        if ctx.saves_result and grad_scales is not None:
            # The sums are of g ⊙ V ⊙ s, and s is the same for all that is summed.
            grad_scales = torch.where(scales == 0, 0.0, grad_scales / scales)
        return grad_values, grad_scales, None, None


def _kernels(values: torch.Tensor, scales: torch.Tensor, *grads: torch.Tensor) -> ModuleType:
    """The kernels of a GPU; torch elsewhere, for other dtypes, and under `torch.func.vmap`.

    On a CPU torch's own is as fast: it reads V twice, out of the cache.
    """
    is_for_kernels = (
        values.is_cuda
        and values.dtype in _DTYPES
        and scales.dtype == torch.float32
        and not any(map(torch._C._functorch.is_batchedtensor, (values, scales, *grads)))
    )
    return tiled if is_for_kernels and KERNEL.backend("cuda").name != "torch" else reference
