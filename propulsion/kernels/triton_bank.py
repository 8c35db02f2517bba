"""The z-bank in Triton: which scale a token's values have."""

import triton
import triton.language as tl


@triton.jit
def offsets_of(bank, stride, num_rows, slots, token, columns, mask):  # type: ignore[no-untyped-def]
    """s - 1 of a token at some columns; row 0, the base, where its slot is not in the bank."""
    slot = tl.load(slots + token).to(tl.int64)
    row = tl.where((slot > 0) & (slot < num_rows), slot, 0)
    return tl.load(bank + row * stride + columns, mask=mask, other=0.0).to(tl.float32)


@triton.jit  # type: ignore[untyped-decorator]
def scaled(  # type: ignore[no-untyped-def]
    value,
    bank,
    stride,
    num_rows,
    slots,
    negative_slots,
    token,
    columns,
    mask,
    IS_PAIR: tl.constexpr,
):
    """value ⊙ s, fp32."""
    offset = offsets_of(bank, stride, num_rows, slots, token, columns, mask)
    if IS_PAIR:
        below = offsets_of(bank, stride, num_rows, negative_slots, token, columns, mask)
        offset = tl.where(value < 0, below, offset)
    return value * (1.0 + offset)


@triton.jit  # type: ignore[untyped-decorator]
def activated(value, ACTIVATION: tl.constexpr):  # type: ignore[no-untyped-def]
    """An activation by its number (`activations.py`); none for -1."""
    if ACTIVATION == 0:
        return value * tl.sigmoid(value)
    if ACTIVATION == 1:
        return 0.5 * value * (1.0 + tl.erf(value * 0.7071067811865476))
    if ACTIVATION == 2:
        inner = 0.7978845608028654 * (value + 0.044715 * value * value * value)
        return value * tl.sigmoid(2.0 * inner)
    return value
