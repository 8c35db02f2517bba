"""`torch.ops.propulsion.scale_by_slot` and `scale_by_slot_tiles`: what a training step runs."""

from __future__ import annotations

from pathlib import Path

import torch

from propulsion.kernels.registry import Kernel, Operator
from propulsion.kernels.scale_by_slot import reference


def _like_values(values: torch.Tensor, *_: object) -> torch.Tensor:
    return torch.empty_like(values)


def _of_tiles(
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
    num_rows, width = values.shape
    return (
        values.new_empty(num_rows if needs_values else 0, width),
        scales.new_empty(num_tiles if needs_scales else 0, *scales.shape[1:]),
    )


KERNEL = Kernel(
    Path(__file__).parent,
    Operator(
        "scale_by_slot(Tensor values, Tensor scales, Tensor? slots) -> Tensor",
        reference.scale,
        _like_values,
    ),
    Operator(
        "scale_by_slot_tiles(Tensor grad, Tensor values, Tensor scales, Tensor? tile_slot, "
        "Tensor? tile_start, Tensor? tile_end, Tensor? groups, SymInt num_tiles, "
        "bool needs_values, bool needs_scales) -> (Tensor, Tensor)",
        reference.scale_backward_by_tiles,
        _of_tiles,
    ),
)
