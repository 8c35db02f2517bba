"""V ⊙ s[slot] in Triton. Backward reads V and its gradient once for both gradients."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from propulsion.kernels.scale_by_slot.tiles import TILE_ROWS, tiles_by_slot

BLOCK_ROWS = 16
BLOCK_COLUMNS = 256


def scale(values: torch.Tensor, scales: torch.Tensor, slots: torch.Tensor | None) -> torch.Tensor:
    """As `reference.scale`, on tensors of one CUDA device."""
    flat = values.reshape(-1, values.shape[-1])
    result = torch.empty(values.shape, dtype=values.dtype, device=values.device)
    num_rows, width = flat.shape
    if flat.numel():
        _scale_kernel[triton.cdiv(num_rows, BLOCK_ROWS), triton.cdiv(width, BLOCK_COLUMNS)](
            flat,
            scales.contiguous(),
            slots,
            result,
            num_rows,
            width,
            _rows_per_group(num_rows, slots),
            HAS_SLOTS=slots is not None,
            IS_PAIR=scales.shape[1] == 2,
            BLOCK_ROWS=BLOCK_ROWS,
            BLOCK_COLUMNS=BLOCK_COLUMNS,
        )
    return result


def scale_backward(
    grad: torch.Tensor,
    values: torch.Tensor,
    scales: torch.Tensor,
    slots: torch.Tensor | None,
    needs_values: bool = True,
    needs_scales: bool = True,
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """As `reference.scale_backward`, in one pass; the order of its sums is always the same."""
    flat = values.reshape(-1, values.shape[-1])
    num_rows, width = flat.shape
    if not flat.numel():
        return torch.empty_like(values), torch.zeros_like(scales)
    tiles = None
    num_tiles = triton.cdiv(num_rows, TILE_ROWS)
    if slots is not None:
        tiles = tiles_by_slot(num_rows, slots, scales.shape[0])
        num_tiles = tiles.slot.shape[0]
    grad_values = None
    if needs_values:
        grad_values = torch.empty(values.shape, dtype=values.dtype, device=values.device)
    partial = scales.new_zeros(num_tiles, *scales.shape[1:]) if needs_scales else None
    _backward_kernel[num_tiles, triton.cdiv(width, BLOCK_COLUMNS)](
        grad.reshape(flat.shape),
        flat,
        scales.contiguous(),
        grad_values,
        partial,
        tiles and tiles.slot,
        tiles and tiles.start,
        tiles and tiles.end,
        tiles and tiles.groups,
        num_rows,
        width,
        _rows_per_group(num_rows, slots),
        HAS_SLOTS=tiles is not None,
        IS_PAIR=scales.shape[1] == 2,
        NEEDS_VALUES=needs_values,
        NEEDS_SCALES=needs_scales,
        TILE_ROWS=TILE_ROWS,
        BLOCK_ROWS=BLOCK_ROWS,
        BLOCK_COLUMNS=BLOCK_COLUMNS,
    )
    grad_scales = None
    if partial is not None:
        grad_scales = partial.sum(0, keepdim=True) if tiles is None else tiles.sum_by_slot(partial)
    return grad_values, grad_scales


def _rows_per_group(num_rows: int, slots: torch.Tensor | None) -> int:
    return num_rows if slots is None else num_rows // slots.shape[0]


@triton.jit  # type: ignore[untyped-decorator]
def _scale_kernel(  # type: ignore[no-untyped-def]
    values,
    scales,
    slots,
    result,
    num_rows,
    width,
    rows_per_group,
    HAS_SLOTS: tl.constexpr,
    IS_PAIR: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    rows = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    columns = tl.program_id(1) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    in_width = columns < width
    mask = (rows < num_rows)[:, None] & in_width[None, :]
    offsets = rows[:, None] * width + columns[None, :]
    value = tl.load(values + offsets, mask=mask, other=0.0).to(tl.float32)
    num_scale_rows: tl.constexpr = 2 if IS_PAIR else 1
    if HAS_SLOTS:
        slot = tl.load(slots + rows // rows_per_group, mask=rows < num_rows, other=0).to(tl.int64)
        scale_offsets = slot[:, None] * num_scale_rows * width + columns[None, :]
        scale_mask = mask
    else:
        scale_offsets = columns[None, :]
        scale_mask = in_width[None, :]
    factor = tl.load(scales + scale_offsets, mask=scale_mask, other=0.0)
    if IS_PAIR:
        below = tl.load(scales + scale_offsets + width, mask=scale_mask, other=0.0)
        factor = tl.where(value < 0, below, factor)
    tl.store(result + offsets, (value * factor).to(result.dtype.element_ty), mask=mask)


@triton.jit  # type: ignore[untyped-decorator]
def _backward_kernel(  # type: ignore[no-untyped-def]
    grad,
    values,
    scales,
    grad_values,
    partial,
    tile_slot,
    tile_start,
    tile_end,
    groups,
    num_rows,
    width,
    rows_per_group,
    HAS_SLOTS: tl.constexpr,
    IS_PAIR: tl.constexpr,
    NEEDS_VALUES: tl.constexpr,
    NEEDS_SCALES: tl.constexpr,
    TILE_ROWS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    tile = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    in_width = columns < width
    num_scale_rows: tl.constexpr = 2 if IS_PAIR else 1
    if HAS_SLOTS:
        start = tl.load(tile_start + tile)
        end = tl.load(tile_end + tile)
        scale_start = tl.load(tile_slot + tile) * num_scale_rows * width
    else:
        start = tile * TILE_ROWS
        end = num_rows
        scale_start = 0
    above = tl.load(scales + scale_start + columns, mask=in_width, other=0.0)
    sum_above = tl.zeros((BLOCK_COLUMNS,), dtype=tl.float32)
    if IS_PAIR:
        below = tl.load(scales + scale_start + width + columns, mask=in_width, other=0.0)
        sum_below = tl.zeros((BLOCK_COLUMNS,), dtype=tl.float32)
    for step in range(0, TILE_ROWS, BLOCK_ROWS):
        index = start + step + tl.arange(0, BLOCK_ROWS)
        in_rows = index < end
        if HAS_SLOTS:
            group = tl.load(groups + index // rows_per_group, mask=in_rows, other=0)
            rows = group * rows_per_group + index % rows_per_group
        else:
            rows = index
        mask = in_rows[:, None] & in_width[None, :]
        offsets = rows[:, None] * width + columns[None, :]
        upstream = tl.load(grad + offsets, mask=mask, other=0.0).to(tl.float32)
        value = tl.load(values + offsets, mask=mask, other=0.0).to(tl.float32)
        if NEEDS_VALUES:
            factor = above[None, :]
            if IS_PAIR:
                factor = tl.where(value < 0, below[None, :], factor)
            downstream = (upstream * factor).to(grad_values.dtype.element_ty)
            tl.store(grad_values + offsets, downstream, mask=mask)
        if NEEDS_SCALES:
            product = upstream * value
            if IS_PAIR:
                sum_above += tl.sum(tl.where(value < 0, 0.0, product), axis=0)
                sum_below += tl.sum(tl.where(value < 0, product, 0.0), axis=0)
            else:
                sum_above += tl.sum(product, axis=0)
    if NEEDS_SCALES:
        sums = partial + tile * num_scale_rows * width + columns
        tl.store(sums, sum_above, mask=in_width)
        if IS_PAIR:
            tl.store(sums + width, sum_below, mask=in_width)
