"""Tab-separated rows with a label."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from propulsion.errors import DataError
from trainer.config.formats import TsvFormat
from trainer.data.labels import labeled_record
from trainer.data.records import Record
from trainer.data.rows import Decoder

if TYPE_CHECKING:
    from datasets import Dataset


def tsv_decoder(
    lines: Dataset, columns: TsvFormat, task_type: str, prompt: str, path: Path
) -> Decoder:
    """What makes a record of a line; nothing of a blank one, or of a short one to be left out.

    Raises:
        DataError: the header lacks a column.
    """
    header = lines[0]["text"].split("\t") if columns.header else []
    text_at, label_at = (_column(path, header, c) for c in (columns.text, columns.label))
    pair_at = None if columns.text_pair is None else _column(path, header, columns.text_pair)
    return partial(
        _decode,
        columns=columns,
        text_at=text_at,
        pair_at=pair_at,
        label_at=label_at,
        task_type=task_type,
        prompt=prompt,
    )


def _decode(
    line: dict[str, str],
    where: str,
    *,
    columns: TsvFormat,
    text_at: int,
    pair_at: int | None,
    label_at: int,
    task_type: str,
    prompt: str,
) -> Record | None:
    if not line["text"]:
        return None
    row = line["text"].split("\t")
    last = max(text_at, label_at, pair_at or 0)
    if last >= len(row):
        if columns.skip_short_rows:
            return None
        raise DataError(
            f"{where}: has {len(row)} columns, column {last} (counted from 0) is needed"
        )
    return labeled_record(
        row[text_at].strip(),
        None if pair_at is None else row[pair_at].strip(),
        row[label_at].strip(),
        columns.labels,
        task_type,
        prompt,
        where,
    )


def _column(path: Path, header: list[str], column: str | int) -> int:
    if isinstance(column, int):
        return column
    if column not in header:
        raise DataError(f"{path}:1: no column {column!r}; the header has {', '.join(header)}")
    return header.index(column)
