"""Which records each step sees, as a pure function, so that it needs no checkpoint."""

from __future__ import annotations

import random
from functools import lru_cache


def step_indices(num_records: int, batch_size: int, step: int, seed: int) -> list[int]:
    """Which records make the batch of a step, over all ranks.

    The stream of all epochs, each in an order of its own, is cut into batches; so a run resumes at
    any step and on any number of ranks.
    """
    indices: list[int] = []
    position = step * batch_size
    while len(indices) < batch_size:
        epoch, offset = divmod(position + len(indices), num_records)
        order = _epoch_order(num_records, epoch, seed)
        indices += order[offset : offset + batch_size - len(indices)]
    return indices


# Two epochs of each of several adapters are in use at a time.
@lru_cache(maxsize=64)
def _epoch_order(num_records: int, epoch: int, seed: int) -> list[int]:
    order = list(range(num_records))
    random.Random(f"{seed}/{epoch}").shuffle(order)
    return order
