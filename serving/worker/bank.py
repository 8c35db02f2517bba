"""The z-bank: the scales of every resident adapter, allocated once, written in place."""

from collections.abc import Mapping

import numpy as np
import torch

# 128-byte starts (of fp32) let a fused kernel read any layer's part of a row with vector loads.
_ALIGNMENT = 32


class Bank:
    """Rows of s - 1 for all target layers side by side, and the rows of every token in a batch.

    One row holds one adapter's scales for the whole model, so loading it is one copy; a layer sees
    its columns through a view of fixed address (row stride: the whole width), so captured graphs
    stay valid. Row 0 is all zeros: the base model. An adapter pooled by max or min has two rows,
    one where values are at least 0 and one where they are below.

    Attributes:
        rows: (num_slots + 1, width), width being the sum of the padded layer widths.
        token_slots: (max_num_tokens,) int32, the row of each token; every entry is a valid row.
        negative_slots: (max_num_tokens,) int32, the row of each token's negative values.
        has_pairs: whether hooks must read `negative_slots`.
    """

    def __init__(
        self,
        layer_widths: Mapping[str, int],
        num_slots: int,
        max_num_tokens: int,
        device: torch.device | str,
        dtype: torch.dtype = torch.float32,
    ):
        self._columns: dict[str, slice] = {}
        self.width = 0
        for name, layer_width in layer_widths.items():
            self._columns[name] = slice(self.width, self.width + layer_width)
            self.width += -(-layer_width // _ALIGNMENT) * _ALIGNMENT
        self.rows = torch.zeros(num_slots + 1, self.width, dtype=dtype, device=device)
        self.token_slots = torch.zeros(max_num_tokens, dtype=torch.int32, device=device)
        self.negative_slots = torch.zeros_like(self.token_slots)
        self.has_pairs = False

    @property
    def row_bytes(self) -> int:
        """Memory of one row."""
        return self.width * self.rows.element_size()

    def columns(self, layer: str) -> slice:
        """Where the layer's scales lie in a row."""
        return self._columns[layer]

    def layer(self, name: str) -> torch.Tensor:
        """(num_slots + 1, layer width) view of one layer's s - 1."""
        return self.rows[:, self._columns[name]]

    def host_row(self, values: torch.Tensor) -> torch.Tensor:
        """A (width,) row on the host in the bank's dtype, pinned where the bank is on a GPU."""
        row = values.to(self.rows.dtype)
        return row.pin_memory() if self.rows.is_cuda else row

    def clear(self) -> None:
        """Be the base model everywhere, whatever became of the memory."""
        for tensor in (self.rows, self.token_slots, self.negative_slots):
            tensor.zero_()

    def write(self, slot: int, row: torch.Tensor) -> None:
        """Copy a (width,) host row of s - 1 into `slot` (1..num_slots)."""
        self.rows[slot].copy_(row, non_blocking=True)

    def set_token_slots(self, token_slots: np.ndarray, negative_slots: np.ndarray | None) -> None:
        """Set the rows of the batch's first len(token_slots) tokens; the rest keep valid ones.

        Args:
            token_slots: int32 rows.
            negative_slots: int32 rows of negative values; None where they are the same.
        """
        self._copy(token_slots, self.token_slots)
        if self.has_pairs or negative_slots is not None:
            self._copy(
                token_slots if negative_slots is None else negative_slots, self.negative_slots
            )

    @staticmethod
    def _copy(values: np.ndarray, target: torch.Tensor) -> None:
        source = torch.from_numpy(values)
        if target.is_cuda:
            # A fresh pinned block per step: reusing one would race with the last step's copy.
            source = source.pin_memory()
        target[: len(source)].copy_(source, non_blocking=True)
