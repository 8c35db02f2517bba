"""What an adapter costs that is not in its place: waves that find it in a slot, in host memory, or
only in the store, compared."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cluster.capacity.measuring.waves import Timing, Wave, WaveSender


@dataclass(frozen=True)
class AdapterSets:
    """Names to cycle through.

    Under a least-recently-used order, a cycle over more names than there are places finds none.

    Attributes:
        warm: at most as many as one batch may hold.
        host: more than there are slots, at most as many as host memory holds.
        cold: more than host memory holds.
    """

    warm: Iterator[str]
    host: Iterator[str]
    cold: Iterator[str]

    @classmethod
    def of(cls, names: Sequence[str], warm: int, host_adapters: int) -> AdapterSets:
        """From the names of a store with more than `host_adapters` of them."""
        return cls(
            itertools.cycle(names[:warm]),
            itertools.cycle(names[:host_adapters]),
            itertools.cycle(names),
        )


@dataclass(frozen=True)
class AdapterCosts:
    """Seconds: a whole load, its part that stops the engine, and a copy into a slot."""

    load: float
    blocking: float
    slot_write: float


async def measure_adapter_costs(
    sender: WaveSender, sets: AdapterSets, *, concurrency: int, prompt_tokens: int, repeats: int
) -> AdapterCosts:
    """Compare waves whose adapters lie in different places; medians over repeats and replicas."""
    alone, together = (Wave(c, prompt_tokens, 4) for c in (1, concurrency))
    found: dict[tuple[str, int], list[Timing]] = {}
    for _ in range(repeats):
        for place, names in (("cold", sets.cold), ("host", sets.host), ("warm", sets.warm)):
            # Twice, since the place before left the slots and the host memory to others.
            await sender.send(together, names)
            for wave in (together, alone):
                timings = await sender.send(wave, names)
                found.setdefault((place, wave.concurrency), []).extend(timings)

    def makespan(place: str) -> float:
        return statistics.median(t.makespan for t in found[place, concurrency])

    def first_token(place: str) -> float:
        return statistics.median(t.first_token_mean for t in found[place, 1])

    slot_write = max(0.0, makespan("host") - makespan("warm")) / concurrency
    missing = max(0.0, makespan("cold") - makespan("warm")) / concurrency
    blocking = max(0.0, missing - slot_write)
    load = max(blocking, first_token("cold") - first_token("warm") - slot_write)
    return AdapterCosts(load, blocking, slot_write)
