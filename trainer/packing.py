"""Tensors of rows that hold several records, each blind to the others."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch

from propulsion.errors import ConfigError
from trainer.batch_plan import Row
from trainer.tasks.task import IGNORED


def check_packs(model: Any, task_type: str) -> None:
    """Packing needs a model to which position and mask can be given.

    Raises:
        ConfigError: it is not such a model.
    """
    parameters = inspect.signature(model.forward).parameters
    if "position_ids" not in parameters or getattr(model.config, "model_type", "") == "bloom":
        raise ConfigError(
            f"batching.packing: {type(model).__name__} takes no position ids, so records that "
            "share a row would see each other: set it to false"
        )
    if task_type != "CAUSAL_LM":
        raise ConfigError("batching.packing is for causal language models: set it to false")


def collate_packed(rows: Sequence[Row], pad_id: int, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Inputs of a causal model, with an attention mask that keeps the records of a row apart.

    Returns:
        `input_ids`, `position_ids` and `labels`, each (rows, longest), int64, and an additive
        `attention_mask` (rows, 1, longest, longest) in `dtype`.
    """
    longest = max(len(row) for row in rows)
    input_ids = torch.full((len(rows), longest), pad_id)
    position_ids = torch.zeros_like(input_ids)
    labels = torch.full_like(input_ids, IGNORED)
    record = torch.full_like(input_ids, -1)
    for index, row in enumerate(rows):
        start = 0
        for number, part in enumerate(row.parts):
            end = start + len(part)
            input_ids[index, start:end] = torch.tensor(part.ids)
            position_ids[index, start:end] = torch.arange(len(part))
            labels[index, start:end] = torch.tensor(part.labels)
            # It would be predicted from the record before.
            labels[index, start] = IGNORED
            record[index, start:end] = number
            start = end
    sees = (record[:, :, None] == record[:, None, :]).tril()
    mask = torch.zeros(sees.shape, dtype=dtype).masked_fill(~sees, torch.finfo(dtype).min)
    return {
        "input_ids": input_ids,
        "position_ids": position_ids,
        "labels": labels,
        "attention_mask": mask[:, None],
    }
