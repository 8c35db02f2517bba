"""Cuts a batch into runs of rows that share a slot, so that each run is reduced by one program."""

from __future__ import annotations

from dataclasses import dataclass

import torch

TILE_ROWS = 128
"""Most rows of a tile."""


@dataclass(frozen=True)
class Tiles:
    """Tiles of at most TILE_ROWS rows of one slot, where rows are counted in the order of slots.

    How many tiles a slot has is known on the device alone, and reading it would stall; so there
    are as many tiles as there can be, and the last ones may be empty. All tensors are int64.
    """

    slot: torch.Tensor
    """Shape (num_tiles,)."""
    start: torch.Tensor
    """First row of each tile, shape (num_tiles,)."""
    end: torch.Tensor
    """One past the last row of the tile's slot, shape (num_tiles,)."""
    groups: torch.Tensor
    """Groups of rows in the order of their slots, shape (num_groups,)."""
    tiles_per_slot: torch.Tensor
    """Shape (num_slots + 1,); the last counts the empty tiles."""

    def sum_by_slot(self, partial: torch.Tensor) -> torch.Tensor:
        """Sums over each slot's tiles: (num_tiles, rows, d) to (num_slots, rows, d)."""
        sums = torch.segment_reduce(
            partial.flatten(1), "sum", lengths=self.tiles_per_slot, axis=0, unsafe=True
        )
        return sums[:-1].view(-1, *partial.shape[1:])


def tiles_by_slot(num_rows: int, slots: torch.Tensor, num_slots: int) -> Tiles:
    """Tiles of a batch of `num_rows` rows, in num_groups equal groups with one slot each.

    Args:
        num_rows: rows of the batch, a multiple of num_groups.
        slots: slot of each group, shape (num_groups,), int64.
        num_slots: slots are below it.
    """
    rows = torch.zeros(num_slots, dtype=torch.int64, device=slots.device)
    rows = rows.index_add(0, slots, torch.full_like(slots, num_rows // slots.shape[0]))
    tiles = (rows + TILE_ROWS - 1) // TILE_ROWS
    last_row, last_tile = rows.cumsum(0), tiles.cumsum(0)
    num_tiles = num_rows // TILE_ROWS + num_slots
    index = torch.arange(num_tiles, device=slots.device)
    slot = torch.searchsorted(last_tile, index, right=True)
    is_empty = slot == num_slots
    slot = slot.clamp_max(num_slots - 1)
    end = last_row[slot]
    start = end - rows[slot] + (index - (last_tile - tiles)[slot]) * TILE_ROWS
    return Tiles(
        slot=slot,
        start=torch.where(is_empty, end, start),
        end=end,
        groups=torch.argsort(slots, stable=True),
        tiles_per_slot=torch.cat((tiles, num_tiles - last_tile[-1:])),
    )
