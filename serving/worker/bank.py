"""The z-bank: the scales of every resident adapter, allocated once, written in place."""

from collections.abc import Mapping

import numpy as np
import torch

# 128-byte starts let a fused kernel read any layer's part of a row with vector loads.
_ALIGNMENT = 32


class Bank:
    """Rows of s - 1 for all target layers side by side, and the bank row of every token in a batch.

    One adapter is one contiguous row, so loading it is one copy; a layer sees its columns through a
    view of fixed address (row stride: the whole width), so captured graphs stay valid. Row 0 is all
    zeros: the base model.

    Attributes:
        rows: (num_slots + 1, width) float32, width being the sum of the padded layer widths.
        token_slots: (max_num_tokens,) int32, the row of each token; every entry is a valid row.
    """

    def __init__(
        self,
        layer_widths: Mapping[str, int],
        num_slots: int,
        max_num_tokens: int,
        device: torch.device | str,
    ):
        self._columns: dict[str, slice] = {}
        self.width = 0
        for name, layer_width in layer_widths.items():
            self._columns[name] = slice(self.width, self.width + layer_width)
            self.width += -(-layer_width // _ALIGNMENT) * _ALIGNMENT
        self.rows = torch.zeros(num_slots + 1, self.width, dtype=torch.float32, device=device)
        self.token_slots = torch.zeros(max_num_tokens, dtype=torch.int32, device=device)

    def columns(self, layer: str) -> slice:
        """Where the layer's scales lie in a row."""
        return self._columns[layer]

    def layer(self, name: str) -> torch.Tensor:
        """(num_slots + 1, layer width) view of one layer's s - 1."""
        return self.rows[:, self._columns[name]]

    def host_row(self) -> torch.Tensor:
        """A (width,) row of zeros on the host, pinned where the bank is on a GPU."""
        return torch.zeros(self.width, pin_memory=self.rows.is_cuda)

    def write(self, slot: int, row: torch.Tensor) -> None:
        """Copy a (width,) host row of s - 1 into `slot` (1..num_slots)."""
        self.rows[slot].copy_(row, non_blocking=True)

    def set_token_slots(self, token_slots: np.ndarray) -> None:
        """Set the rows of the batch's first len(token_slots) tokens; the rest keep valid ones."""
        source = torch.from_numpy(token_slots.astype(np.int32, copy=False))
        if self.token_slots.is_cuda:
            # A fresh pinned block per step: reusing one would race with the last step's copy.
            source = source.pin_memory()
        self.token_slots[: len(source)].copy_(source, non_blocking=True)
