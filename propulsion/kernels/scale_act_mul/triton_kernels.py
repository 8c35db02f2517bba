"""`scale_act_mul` in Triton."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from propulsion.kernels.triton_bank import activated, scaled

BLOCK = 1024


def scale_act_mul(
    x: torch.Tensor,
    bank: torch.Tensor,
    slots: torch.Tensor,
    negative_slots: torch.Tensor | None,
    activation: int,
) -> torch.Tensor:
    """The operator `scale_act_mul`."""
    out = x.new_empty(x.shape[0], x.shape[1] // 2)
    scale_act_mul_out(x, bank, slots, negative_slots, activation, out)
    return out


def scale_act_mul_out(
    x: torch.Tensor,
    bank: torch.Tensor,
    slots: torch.Tensor,
    negative_slots: torch.Tensor | None,
    activation: int,
    out: torch.Tensor,
) -> None:
    """The operator `scale_act_mul_out`."""
    if not out.numel():
        return
    _act_mul_kernel[out.shape[0], triton.cdiv(out.shape[1], BLOCK)](
        x,
        out,
        bank,
        slots,
        negative_slots,
        out.shape[1],
        x.stride(0),
        out.stride(0),
        bank.stride(0),
        bank.shape[0],
        IS_PAIR=negative_slots is not None,
        ACTIVATION=activation,
        BLOCK=BLOCK,
    )


@triton.jit  # type: ignore[untyped-decorator]
def _act_mul_kernel(  # type: ignore[no-untyped-def]
    x,
    out,
    bank,
    slots,
    negative_slots,
    width,
    stride,
    out_stride,
    bank_stride,
    num_rows,
    IS_PAIR: tl.constexpr,
    ACTIVATION: tl.constexpr,
    BLOCK: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = columns < width
    row = x + token * stride
    gate = tl.load(row + columns, mask=mask, other=0.0).to(tl.float32)
    gate = scaled(
        gate, bank, bank_stride, num_rows, slots, negative_slots, token, columns, mask, IS_PAIR
    )
    columns_of_up = width + columns
    up = tl.load(row + columns_of_up, mask=mask, other=0.0).to(tl.float32)
    up = scaled(
        up, bank, bank_stride, num_rows, slots, negative_slots, token, columns_of_up, mask, IS_PAIR
    )
    product = activated(gate, ACTIVATION) * up
    tl.store(out + token * out_stride + columns, product.to(out.dtype.element_ty), mask=mask)
