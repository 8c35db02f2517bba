"""V ⊙ s[slot] and its gradients in plain torch: any device, any transform."""

from __future__ import annotations

import torch

from propulsion.kernels.scale_by_slot.tiles import TILE_ROWS


def scale(values: torch.Tensor, scales: torch.Tensor, slots: torch.Tensor | None) -> torch.Tensor:
    """`scale_by_slot` without a gradient of its own."""
    return (values * _factor(values, scales, slots)).to(values.dtype)


def scale_backward(
    grad: torch.Tensor,
    values: torch.Tensor,
    scales: torch.Tensor,
    slots: torch.Tensor | None,
    needs_values: bool = True,
    needs_scales: bool = True,
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Gradients of `scale` for V, in V's dtype, and for s, fp32; None for what is not needed."""
    grad_values = grad_scales = None
    if needs_values:
        grad_values = (grad * _factor(values, scales, slots)).to(values.dtype)
    if needs_scales:
        products = grad.float() * values
        if scales.shape[1] == 1:
            sums = _sum_groups(products, slots)[:, None]
        else:
            below = products * (values < 0)
            sums = torch.stack((_sum_groups(products - below, slots), _sum_groups(below, slots)), 1)
        grad_scales = sums if slots is None else _sum_slots(sums, slots, scales)
    return grad_values, grad_scales


def scale_backward_by_tiles(
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
    """What the backward kernels compute: `scale_backward` before the sum over a slot's tiles.

    Args:
        grad: of the result, shape (num_rows, d), dtype of V.
        values: V, shape (num_rows, d).
        scales: shape (num_slots, 1 or 2, d), fp32.
        tile_slot: `Tiles.slot`; None with one slot, whose tiles are then in the order of the rows.
        tile_start: `Tiles.start`.
        tile_end: `Tiles.end`.
        groups: `Tiles.groups`.
        num_tiles: number of tiles.
        needs_values: else the first result has no rows.
        needs_scales: else the second result has no tiles.

    Returns:
        Gradient of V, and sums of g ⊙ V for each tile, (num_tiles, 1 or 2, d), fp32.
    """
    num_rows, width = values.shape
    grad_values = values.new_empty(num_rows if needs_values else 0, width)
    partial = scales.new_empty(num_tiles if needs_scales else 0, *scales.shape[1:])
    rows_per_group = num_rows if groups is None else num_rows // groups.shape[0]
    for tile in range(num_tiles):
        start, end, of_tile = tile * TILE_ROWS, num_rows, scales[:1]
        if tile_slot is not None and tile_start is not None and tile_end is not None:
            start, end = int(tile_start[tile]), int(tile_end[tile])
            of_tile = scales[tile_slot[tile]][None]
        rows = torch.arange(start, min(start + TILE_ROWS, end), device=values.device)
        if groups is not None:
            rows = groups[rows // rows_per_group] * rows_per_group + rows % rows_per_group
        of_values, of_scales = scale_backward(
            grad[rows], values[rows], of_tile, None, needs_values, needs_scales
        )
        if of_values is not None:
            grad_values[rows] = of_values
        if of_scales is not None:
            partial[tile] = of_scales[0]
    return grad_values, partial


def _factor(values: torch.Tensor, scales: torch.Tensor, slots: torch.Tensor | None) -> torch.Tensor:
    """What each value is multiplied by, in a shape that broadcasts with V."""
    above = _spread(scales[:, 0], values, slots)
    if scales.shape[1] == 1:
        return above
    return torch.where(values < 0, _spread(scales[:, 1], values, slots), above)


def _spread(scales: torch.Tensor, values: torch.Tensor, slots: torch.Tensor | None) -> torch.Tensor:
    """Scales of all slots, (num_slots, d), to those of each row of V."""
    if slots is None:
        return scales[0]
    of_groups = scales.index_select(0, slots)
    if values.shape[0] == slots.shape[0]:
        return of_groups.view(-1, *[1] * (values.ndim - 2), scales.shape[-1])
    rows_per_group = values[..., 0].numel() // slots.shape[0]
    return of_groups.repeat_interleave(rows_per_group, dim=0).view(values.shape)


def _sum_slots(sums: torch.Tensor, slots: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(scales).index_add(0, slots, sums)


def _sum_groups(products: torch.Tensor, slots: torch.Tensor | None) -> torch.Tensor:
    """(..., d) to (num_groups, d)."""
    num_groups = 1 if slots is None else slots.shape[0]
    grouped = products.reshape(num_groups, -1, products.shape[-1])
    if products.device.type != "cpu":
        return grouped.sum(dim=1)
    # On a CPU a product with ones takes half the time of a sum over rows.
    return (grouped.new_ones(1, grouped.shape[1]) @ grouped)[:, 0]
