"""`scale_rope` in Triton."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from propulsion.kernels.triton_bank import scaled

VALUE_BLOCK = 1024


def scale_rope_(
    qkv: torch.Tensor,
    bank: torch.Tensor,
    slots: torch.Tensor,
    negative_slots: torch.Tensor | None,
    positions: torch.Tensor,
    cos_sin: torch.Tensor,
    heads: int,
    head_size: int,
    is_neox: bool,
) -> None:
    """The operator `scale_rope_`."""
    _run(qkv, qkv, bank, slots, negative_slots, positions, cos_sin, heads, head_size, is_neox)


def scale_rope(
    qkv: torch.Tensor,
    bank: torch.Tensor,
    slots: torch.Tensor,
    negative_slots: torch.Tensor | None,
    positions: torch.Tensor,
    cos_sin: torch.Tensor,
    heads: int,
    head_size: int,
    is_neox: bool,
) -> torch.Tensor:
    """The operator `scale_rope`."""
    out = torch.empty_like(qkv)
    _run(qkv, out, bank, slots, negative_slots, positions, cos_sin, heads, head_size, is_neox)
    return out


def _run(
    qkv: torch.Tensor,
    out: torch.Tensor,
    bank: torch.Tensor,
    slots: torch.Tensor,
    negative_slots: torch.Tensor | None,
    positions: torch.Tensor,
    cos_sin: torch.Tensor,
    heads: int,
    head_size: int,
    is_neox: bool,
) -> None:
    if not qkv.numel():
        return
    num_tokens, width = qkv.shape
    rotary_dim = cos_sin.shape[1]
    blocks_of_values = triton.cdiv(width - heads * head_size, VALUE_BLOCK)
    _rope_kernel[num_tokens, heads + blocks_of_values](
        qkv,
        out,
        bank,
        slots,
        negative_slots,
        positions,
        cos_sin,
        width,
        heads,
        head_size,
        rotary_dim,
        qkv.stride(0),
        out.stride(0),
        bank.stride(0),
        bank.shape[0],
        cos_sin.stride(0),
        IS_PAIR=negative_slots is not None,
        IS_NEOX=is_neox,
        HALF=triton.next_power_of_2(max(1, rotary_dim // 2)),
        REST=triton.next_power_of_2(max(1, head_size - rotary_dim)),
        VALUE_BLOCK=VALUE_BLOCK,
    )


@triton.jit  # type: ignore[untyped-decorator]
def _rope_kernel(  # type: ignore[no-untyped-def]
    qkv,
    out,
    bank,
    slots,
    negative_slots,
    positions,
    cos_sin,
    width,
    heads,
    head_size,
    rotary_dim,
    stride,
    out_stride,
    bank_stride,
    num_rows,
    cache_stride,
    IS_PAIR: tl.constexpr,
    IS_NEOX: tl.constexpr,
    HALF: tl.constexpr,
    REST: tl.constexpr,
    VALUE_BLOCK: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    source, target = qkv + token * stride, out + token * out_stride
    if part >= heads:
        of_v = heads * head_size + (part - heads) * VALUE_BLOCK + tl.arange(0, VALUE_BLOCK)
        in_v = of_v < width
        v = tl.load(source + of_v, mask=in_v, other=0.0).to(tl.float32)
        v = scaled(
            v, bank, bank_stride, num_rows, slots, negative_slots, token, of_v, in_v, IS_PAIR
        )
        tl.store(target + of_v, v.to(out.dtype.element_ty), mask=in_v)
    else:
        half = rotary_dim // 2
        index = tl.arange(0, HALF)
        mask = index < half
        turn = cos_sin + tl.load(positions + token) * cache_stride + index
        cosine = tl.load(turn, mask=mask, other=0.0).to(tl.float32)
        sine = tl.load(turn + half, mask=mask, other=0.0).to(tl.float32)
        first = part * head_size
        if IS_NEOX:
            of_a, of_b = first + index, first + half + index
        else:
            of_a, of_b = first + 2 * index, first + 2 * index + 1
        a = tl.load(source + of_a, mask=mask, other=0.0).to(tl.float32)
        b = tl.load(source + of_b, mask=mask, other=0.0).to(tl.float32)
        a = scaled(
            a, bank, bank_stride, num_rows, slots, negative_slots, token, of_a, mask, IS_PAIR
        )
        b = scaled(
            b, bank, bank_stride, num_rows, slots, negative_slots, token, of_b, mask, IS_PAIR
        )
        of_c = first + rotary_dim + tl.arange(0, REST)
        in_c = of_c < first + head_size
        c = tl.load(source + of_c, mask=in_c, other=0.0).to(tl.float32)
        c = scaled(
            c, bank, bank_stride, num_rows, slots, negative_slots, token, of_c, in_c, IS_PAIR
        )
        tl.store(target + of_a, (a * cosine - b * sine).to(out.dtype.element_ty), mask=mask)
        tl.store(target + of_b, (b * cosine + a * sine).to(out.dtype.element_ty), mask=mask)
        tl.store(target + of_c, c.to(out.dtype.element_ty), mask=in_c)
