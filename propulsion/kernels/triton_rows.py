"""Activation(x ⊙ s) of every row in Triton: `gather_scale` and `scale_gelu`."""

import torch
import triton
import triton.language as tl

from propulsion.kernels.triton_bank import activated, scaled

BLOCK = 1024


def scale_rows(
    x: torch.Tensor,
    out: torch.Tensor,
    bank: torch.Tensor,
    slots: torch.Tensor,
    negative_slots: torch.Tensor | None,
    activation: int = -1,
) -> None:
    """Write Activation(x ⊙ s) into `out`, which may be `x`; shapes as in `gather_scale_`."""
    if not x.numel():
        return
    has_repeats = x.ndim == 3
    repeats, width = (x.shape[1] if has_repeats else 1), x.shape[-1]
    _rows_kernel[x.shape[0] * repeats, triton.cdiv(width, BLOCK)](
        x,
        out,
        bank,
        slots,
        negative_slots,
        width,
        repeats,
        x.stride(0),
        x.stride(1) if has_repeats else 0,
        out.stride(0),
        out.stride(1) if has_repeats else 0,
        bank.stride(0),
        bank.shape[0],
        IS_PAIR=negative_slots is not None,
        ACTIVATION=activation,
        BLOCK=BLOCK,
    )


@triton.jit  # type: ignore[untyped-decorator]
def _rows_kernel(  # type: ignore[no-untyped-def]
    x,
    out,
    bank,
    slots,
    negative_slots,
    width,
    repeats,
    token_stride,
    repeat_stride,
    out_token_stride,
    out_repeat_stride,
    bank_stride,
    num_rows,
    IS_PAIR: tl.constexpr,
    ACTIVATION: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    token, repeat = row // repeats, row % repeats
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = columns < width
    source = x + token * token_stride + repeat * repeat_stride + columns
    target = out + token * out_token_stride + repeat * out_repeat_stride + columns
    value = tl.load(source, mask=mask, other=0.0).to(tl.float32)
    value = scaled(
        value, bank, bank_stride, num_rows, slots, negative_slots, token, columns, mask, IS_PAIR
    )
    value = activated(value, ACTIVATION)
    tl.store(target, value.to(out.dtype.element_ty), mask=mask)
