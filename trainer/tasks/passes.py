"""Runs a rank's rows through a model in batches of like length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from trainer.tasks.padding import pad_inputs
from trainer.tasks.task import EncodedRecord


def batches_of_like_length(
    lengths: Sequence[int], batch_size: int, agree: Callable[[int], int]
) -> list[list[int]]:
    """Indices of the rows of each call of the model, sorted by length so that they pad little.

    Args:
        agree: largest value over all ranks; a rank with fewer calls gets empty batches at the end,
            for which it must call the model all the same.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    return batches + [[] for _ in range(agree(len(batches)) - len(batches))]


def forward_passes(
    model: Any,
    rows: Sequence[EncodedRecord],
    pad_id: int,
    *,
    batch_size: int,
    agree: Callable[[int], int],
) -> Iterator[tuple[list[int], Any]]:
    """The indices of the rows of each call, and the model's output for them.

    Makes `agree(number of batches)` calls; those beyond this rank's own are not given out.
    """
    device = next(model.parameters()).device
    spare = EncodedRecord((pad_id,), None, 0)
    for batch in batches_of_like_length([len(row) for row in rows], batch_size, agree):
        inputs = pad_inputs([rows[i] for i in batch] or [spare], pad_id)
        outputs = model(**{name: tensor.to(device) for name, tensor in inputs.items()})
        if batch:
            yield batch, outputs
