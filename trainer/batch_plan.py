"""Divides the rows of a step, of all its adapters, among ranks and forward passes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainer.tasks.task import EncodedRecord


@dataclass(frozen=True)
class Row:
    """One row of a forward pass: a record, or several of one job packed side by side."""

    job: int
    parts: tuple[EncodedRecord, ...]
    weight: float = 1.0
    """0 for a row that only fills up a pass."""

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)


def plan_passes(
    rows: Mapping[int, Sequence[EncodedRecord]],
    rank: int,
    world_size: int,
    micro_batch_size: int | None,
    pack_lengths: Mapping[int, int] | None = None,
) -> list[list[Row]]:
    """The forward passes of one rank for one step.

    Rows of like length go together, so that little is padding. Every rank gets as many passes, as
    ZeRO-3 needs, and no pass is empty.

    Args:
        rows: the step's records of each job, over all ranks.
        rank: whose passes.
        world_size: how many ranks there are.
        micro_batch_size: most rows of a pass; None for all at once.
        pack_lengths: most tokens of a packed row of each job; None for a row per record.
    """
    planned = [
        Row(job, parts)
        for job, records in rows.items()
        for parts in _packed(records, pack_lengths and pack_lengths[job])
    ]
    planned.sort(key=len)
    mine = planned[rank::world_size]
    largest = -(-len(planned) // world_size)
    size = micro_batch_size or largest
    filler = Row(planned[0].job, planned[0].parts, weight=0.0)
    passes = [mine[start : start + size] for start in range(0, largest, size)]
    return [one or [filler] for one in passes]


def _packed(records: Sequence[EncodedRecord], most: int | None) -> list[tuple[EncodedRecord, ...]]:
    """First fit, the longest records first; one record each if `most` is None."""
    if most is None:
        return [(record,) for record in records]
    packs: list[tuple[int, list[EncodedRecord]]] = []
    for record in sorted(records, key=len, reverse=True):
        for index, (length, pack) in enumerate(packs):
            if length + len(record) <= most:
                packs[index] = (length + len(record), [*pack, record])
                break
        else:
            packs.append((len(record), [record]))
    return [tuple(pack) for _, pack in packs]
