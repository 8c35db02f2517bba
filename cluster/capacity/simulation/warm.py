"""Caches as long traffic leaves them, drawn directly.

Where requests are independent, the time since an adapter was last asked for is exponential with its
rate, and a least-recently-used cache holds those asked for last: so one draw for each adapter gives
the cache's stationary state exactly, and nobody has to wait for a million adapters to be asked for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cluster.capacity.simulation.routing import Affinity, Policy


def warm_caches(
    policy: Policy,
    weights: NDArray[np.float64],
    replicas: Sequence[int],
    capacity: int,
    generator: np.random.Generator,
) -> dict[int, list[int]]:
    """Adapters that each replica holds, the least recently used first.

    Args:
        policy: who gets which requests; an affinity router learns the adapters' popularity here.
        weights: popularity of the adapters, shape (num_adapters,).
        replicas: those that serve.
        capacity: adapters that one holds.
        generator: of the draws.
    """
    if not isinstance(policy, Affinity):
        everything = np.arange(len(weights))
        return {r: _held(everything, weights, capacity, generator) for r in replicas}
    policy.learn(generator.choice(len(weights), policy.popularity_window, p=weights).tolist())
    asked: dict[int, list[int]] = defaultdict(list)
    shares: dict[int, list[float]] = defaultdict(list)
    for adapter, weight in enumerate(weights.tolist()):
        homes = policy.homes(adapter)
        for home in homes:
            asked[home].append(adapter)
            shares[home].append(weight / len(homes))
    return {
        r: _held(np.asarray(asked[r], np.int64), np.asarray(shares[r]), capacity, generator)
        for r in replicas
    }


def _held(
    adapters: NDArray[np.int64],
    weights: NDArray[np.float64],
    capacity: int,
    generator: np.random.Generator,
) -> list[int]:
    since = generator.exponential(size=len(adapters)) / weights
    if capacity < len(adapters):
        latest = np.argpartition(since, capacity)[:capacity]
        adapters, since = adapters[latest], since[latest]
    held: list[int] = adapters[np.argsort(-since)].tolist()
    return held
