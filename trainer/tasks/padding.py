"""Puts rows of different lengths into tensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from trainer.tasks.task import IGNORED, EncodedRecord


def pad_rows(
    rows: Sequence[Sequence[int]], value: int, *, length: int | None = None, left: bool = False
) -> torch.Tensor:
    """Rows filled up with `value` at their end, or start, shape (rows, length), int64.

    Args:
        length: of the result; the longest row's if not given.
    """
    length = max(map(len, rows)) if length is None else length
    padded = torch.full((len(rows), length), value)
    for index, row in enumerate(rows):
        start = length - len(row) if left else 0
        padded[index, start : start + len(row)] = torch.tensor(row, dtype=torch.long)
    return padded


def pad_inputs(
    rows: Sequence[EncodedRecord], pad_id: int, *, length: int | None = None
) -> dict[str, torch.Tensor]:
    """Right-padded `input_ids` and `attention_mask`, each (rows, length), int64.

    `token_type_ids` come with them if any row has some. The length is the longest row's if it is
    not given.
    """
    inputs = {
        "input_ids": pad_rows([row.ids for row in rows], pad_id, length=length),
        "attention_mask": pad_rows([[1] * len(row) for row in rows], 0, length=length),
    }
    if any(row.token_type_ids is not None for row in rows):
        types = [row.token_type_ids or (0,) * len(row) for row in rows]
        inputs["token_type_ids"] = pad_rows(types, 0, length=length)
    return inputs


def pad_labels(rows: Sequence[EncodedRecord]) -> torch.Tensor:
    """Labels of rows that have one per token, right-padded with IGNORED, (rows, longest), int64."""
    return pad_rows([row.labels for row in rows], IGNORED)
