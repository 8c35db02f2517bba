"""Runs test records through the model on all ranks, and scores what it says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from trainer.data.records import Record
from trainer.tasks.task import Scores, Task


# Not inference mode: ZeRO-3 gathers weights in it that then take part in no backward pass.
@torch.no_grad()
def evaluate(
    model: Any,
    task: Task,
    records: Sequence[Record],
    *,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    partitioned: bool = False,
) -> Scores:
    """Scores over `records`, divided over the ranks; collective if there are several.

    Args:
        model: a transformers or PEFT model.
        task: says how answers come about and what they are worth.
        records: all of them, on every rank.
        batch_size: records per call of the model and rank.
        rank: which share is this rank's.
        world_size: how many shares there are.
        partitioned: ZeRO-3 divides the weights, so that all ranks must call the model together.
    """
    together = partitioned and world_size > 1
    mine = [records[index] for index in range(rank, len(records), world_size)]
    was_training = model.training
    model.eval()
    try:
        predictions = task.predict(
            model,
            mine,
            batch_size=batch_size,
            agree=_largest if together else int,
            synced=together,
        )
    finally:
        model.train(was_training)
    if world_size > 1:
        predictions = _gathered(predictions, len(records), world_size)
    values = task.score(predictions, records)
    return Scores(task.metric, values, len(records), tuple(predictions))


def _gathered(predictions: list[Any], num_records: int, world_size: int) -> list[Any]:
    shares: list[Any] = [None] * world_size
    torch.distributed.all_gather_object(shares, predictions)
    return [shares[index % world_size][index // world_size] for index in range(num_records)]


def _largest(number: int) -> int:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    value = torch.tensor(number, device=device)
    torch.distributed.all_reduce(value, torch.distributed.ReduceOp.MAX)
    return int(value.item())
