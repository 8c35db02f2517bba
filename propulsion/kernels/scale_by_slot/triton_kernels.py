"""V ⊙ s[slot] in Triton. Backward reads V and its gradient once for both gradients."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from propulsion.kernels.scale_by_slot.tiles import TILE_ROWS

BLOCK_ROWS = 16
BLOCK_COLUMNS = 256


def scale_by_slot(
    values: torch.Tensor, scales: torch.Tensor, slots: torch.Tensor | None
) -> torch.Tensor:
    """The operator `scale_by_slot`."""
    result = torch.empty_like(values)
    num_rows, width = values.shape
    if values.numel():
        _scale_kernel[triton.cdiv(num_rows, BLOCK_ROWS), triton.cdiv(width, BLOCK_COLUMNS)](
            values,
            scales,
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


def scale_by_slot_tiles(
    grad: torch.Tensor,
    values: torch.Tensor,
    scales: torch.Tensor,
    tile_slot: torch.Tensor | None,
    tile_start: torch.Tensor | None,
    tile_end: torch.Tensor | None,
    groups: torch.Tensor | None,
    num_tiles: int,
    needs_values: bool,
    needs_scales: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The operator `scale_by_slot_tiles`."""
    num_rows, width = values.shape
    grad_values = values.new_empty(num_rows if needs_values else 0, width)
    partial = scales.new_empty(num_tiles if needs_scales else 0, *scales.shape[1:])
    if num_tiles and width:
        _backward_kernel[num_tiles, triton.cdiv(width, BLOCK_COLUMNS)](
            grad,
            values,
            scales,
            grad_values if needs_values else None,
            partial if needs_scales else None,
            tile_slot,
            tile_start,
            tile_end,
            groups,
            num_rows,
            width,
            _rows_per_group(num_rows, groups),
            HAS_SLOTS=tile_slot is not None,
            IS_PAIR=scales.shape[1] == 2,
            NEEDS_VALUES=needs_values,
            NEEDS_SCALES=needs_scales,
            TILE_ROWS=TILE_ROWS,
            BLOCK_ROWS=BLOCK_ROWS,
            BLOCK_COLUMNS=BLOCK_COLUMNS,
        )
    return grad_values, partial


def _rows_per_group(num_rows: int, groups: torch.Tensor | None) -> int:
    return num_rows if groups is None else num_rows // groups.shape[0]


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
