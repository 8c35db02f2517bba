"""`scale_add_norm` in Triton: a program takes a row whole."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from propulsion.kernels.triton_bank import scaled


def scale_add_norm_(
    x: torch.Tensor,
    residual: torch.Tensor,
    bank: torch.Tensor,
    slots: torch.Tensor,
    negative_slots: torch.Tensor | None,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    epsilon: float,
    is_layer_norm: bool,
) -> None:
    """The operator `scale_add_norm_`."""
    _run(
        (x, residual), (x, residual), bank, slots, negative_slots, weight, bias, epsilon,
        is_layer_norm,
    )  # fmt: skip


def scale_add_norm(
    x: torch.Tensor,
    residual: torch.Tensor,
    bank: torch.Tensor,
    slots: torch.Tensor,
    negative_slots: torch.Tensor | None,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    epsilon: float,
    is_layer_norm: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The operator `scale_add_norm`."""
    to = torch.empty_like(x), torch.empty_like(residual)
    _run((x, residual), to, bank, slots, negative_slots, weight, bias, epsilon, is_layer_norm)
    return to


def _run(
    source: tuple[torch.Tensor, torch.Tensor],
    target: tuple[torch.Tensor, torch.Tensor],
    bank: torch.Tensor,
    slots: torch.Tensor,
    negative_slots: torch.Tensor | None,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    epsilon: float,
    is_layer_norm: bool,
) -> None:
    num_tokens, width = source[0].shape
    if not num_tokens or not width:
        return
    block = triton.next_power_of_2(width)
    _norm_kernel[(num_tokens,)](
        *source,
        *target,
        bank,
        slots,
        negative_slots,
        weight,
        bias,
        width,
        *(tensor.stride(0) for tensor in (*source, *target, bank)),
        bank.shape[0],
        epsilon,
        IS_PAIR=negative_slots is not None,
        HAS_BIAS=bias is not None,
        IS_LAYER_NORM=is_layer_norm,
        BLOCK=block,
        num_warps=min(16, max(1, block // 512)),
    )


@triton.jit  # type: ignore[untyped-decorator]
def _norm_kernel(  # type: ignore[no-untyped-def]
    x,
    residual,
    out,
    residual_out,
    bank,
    slots,
    negative_slots,
    weight,
    bias,
    width,
    x_stride,
    residual_stride,
    out_stride,
    residual_out_stride,
    bank_stride,
    num_rows,
    epsilon,
    IS_PAIR: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    IS_LAYER_NORM: tl.constexpr,
    BLOCK: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    mask = columns < width
    value = tl.load(x + token * x_stride + columns, mask=mask, other=0.0).to(tl.float32)
    value = scaled(
        value, bank, bank_stride, num_rows, slots, negative_slots, token, columns, mask, IS_PAIR
    )
    total = tl.load(residual + token * residual_stride + columns, mask=mask, other=0.0)
    # The norm is that of the residual as it is stored.
    total = (total.to(tl.float32) + value).to(residual_out.dtype.element_ty)
    tl.store(residual_out + token * residual_out_stride + columns, total, mask=mask)
    sums = total.to(tl.float32)
    if IS_LAYER_NORM:
        sums = tl.where(mask, sums - tl.sum(sums) / width, 0.0)
    normed = sums / tl.sqrt(tl.sum(sums * sums) / width + epsilon)
    normed *= tl.load(weight + columns, mask=mask, other=0.0).to(tl.float32)
    if HAS_BIAS:
        normed += tl.load(bias + columns, mask=mask, other=0.0).to(tl.float32)
    target = out + token * out_stride + columns
    tl.store(target, normed.to(out.dtype.element_ty), mask=mask)
