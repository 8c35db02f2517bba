"""`reference.scale` and `reference.scale_backward` by the kernels' operators.

Backward reads V and its gradient once for both gradients, and sums in an order that is always the
same.
"""

from __future__ import annotations

import torch

from propulsion.kernels.scale_by_slot.tiles import TILE_ROWS, tiles_by_slot


def scale(values: torch.Tensor, scales: torch.Tensor, slots: torch.Tensor | None) -> torch.Tensor:
    """As `reference.scale`; V in fp32, bf16 or fp16."""
    flat = values.reshape(-1, values.shape[-1]).contiguous()
    result: torch.Tensor = torch.ops.propulsion.scale_by_slot(flat, scales.contiguous(), slots)
    return _shaped(result, values)


def scale_backward(
    grad: torch.Tensor,
    values: torch.Tensor,
    scales: torch.Tensor,
    slots: torch.Tensor | None,
    needs_values: bool = True,
    needs_scales: bool = True,
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """As `reference.scale_backward`; V in fp32, bf16 or fp16."""
    flat = values.reshape(-1, values.shape[-1]).contiguous()
    num_rows = flat.shape[0]
    if not flat.numel():
        return torch.empty_like(values), torch.zeros_like(scales)
    tiles = None if slots is None else tiles_by_slot(num_rows, slots, scales.shape[0])
    num_tiles = -(-num_rows // TILE_ROWS) if tiles is None else tiles.slot.shape[0]
    grad_values, partial = torch.ops.propulsion.scale_by_slot_tiles(
        grad.reshape(flat.shape).contiguous(),
        flat,
        scales.contiguous(),
        tiles and tiles.slot,
        tiles and tiles.start,
        tiles and tiles.end,
        tiles and tiles.groups,
        num_tiles,
        needs_values,
        needs_scales,
    )
    grad_scales = None
    if needs_scales:
        grad_scales = partial.sum(0, keepdim=True) if tiles is None else tiles.sum_by_slot(partial)
    return _shaped(grad_values, values) if needs_values else None, grad_scales


def _shaped(flat: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """In the shape of V, and not a view to autograd: models add to a layer's output in place."""
    shaped: torch.Tensor = torch.ops.aten._unsafe_view.default(flat, list(values.shape))
    return shaped
