"""Records that are made of the rows of a table when they are asked for."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from trainer.data.records import Record

if TYPE_CHECKING:
    from datasets import Dataset

Decoder = Callable[[dict[str, Any], str], Record | None]
"""From a row, and what names it in errors, to its record; None where it holds none."""


class TableRecords(Sequence[Record]):
    """The records of a memory-mapped table; only rows that are asked for are read and decoded.

    Args:
        table: the rows.
        decode: makes a record of a row.
        path: names the table in errors.
        text: whether rows are lines of a text file, for errors.
        labels: names of the classes or tags that the table itself declares.
        indices: rows that hold records; all if not given.
    """

    def __init__(
        self,
        table: Dataset,
        decode: Decoder,
        path: Path,
        *,
        text: bool,
        labels: tuple[str, ...] = (),
        indices: Sequence[int] | None = None,
    ) -> None:
        self._table = table
        self._decode = decode
        self._path = path
        self._text = text
        self.labels = labels
        self._indices = range(len(table)) if indices is None else indices

    def validated(self, first: int, limit: int | None) -> TableRecords:
        """The first `limit` records from the row `first` on, after decoding each of them once.

        Takes no memory for a row, but 8 bytes where a table has rows without a record among the
        others.

        Raises:
            DataError: a row is malformed.
        """
        skipped = set()
        end = first
        for row, value in islice(enumerate(self._table), first, None):
            if limit is not None and end - first - len(skipped) == limit:
                break
            end = row + 1
            if self._decode(value, self._place(row)) is None:
                skipped.add(row)
        rows: Sequence[int] = range(first, end)
        if skipped:
            rows = array("q", (row for row in rows if row not in skipped))
        return self._with(rows)

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> TableRecords: ...
    def __getitem__(self, index: int | slice) -> Record | TableRecords:
        if isinstance(index, slice):
            return self._with(self._indices[index])
        row = self._indices[index]
        record = self._decode(self._table[row], self._place(row))
        assert record is not None
        return record

    def _with(self, indices: Sequence[int]) -> TableRecords:
        return TableRecords(
            self._table,
            self._decode,
            self._path,
            text=self._text,
            labels=self.labels,
            indices=indices,
        )

    def _place(self, row: int) -> str:
        return f"{self._path}:{row + 1}" if self._text else f"{self._path}: row {row}"
