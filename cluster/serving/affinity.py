"""Which replica a request for an adapter goes to: consistent hashing with bounded loads.

Knows nothing of Ray: the router of Ray Serve feeds it, and so does a simulation.

An adapter has a home on a hash ring of the replicas, so that each replica holds a part of the
adapters and no replica all of them. An adapter that draws more requests than one replica's fair
share has several homes. A request goes to the home that will answer it soonest; where all homes
have too long a queue, to the next replica on the ring that has not, which is the same one for all
requests of that adapter.
"""

import math
import random
from collections.abc import Collection, Iterable, Set
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from cluster.serving.popularity import Popularity
from cluster.serving.ring import HashRing

Route = Literal["home", "replica_of_hot", "spill"]

_NOWHERE: frozenset[str] = frozenset()
# How far a request may move along the ring. Under the default load factor at most four replicas
# in five are over the bound, so that none of so many is free once in thirty-five times at worst.
_NEARBY = 16
_MAX_COMING = 256


class AffinityConfig(BaseModel):
    """How requests are spread over replicas."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    virtual_nodes: int = Field(
        64, ge=1, description="Places of each replica on the hash ring; more spread more evenly."
    )
    load_factor: float = Field(
        1.25,
        gt=1,
        description="A replica may have so many times the mean queue before requests leave it.",
    )
    free_queue: int = Field(
        12,
        ge=1,
        description="A queue below this length is never too long: the engine runs so many requests "
        "in one batch without any of them waiting.",
    )
    host_cost: float = Field(
        0.5,
        ge=0,
        description="What copying an adapter from host memory to a slot costs, in queued requests.",
    )
    miss_cost: float = Field(
        4.0,
        ge=0,
        description="What loading an adapter from the store costs, in queued requests.",
    )
    popularity_window: int = Field(
        10_000, ge=8, description="Requests after which older ones count half for popularity."
    )
    candidates: int = Field(
        4, ge=1, description="Most homes of a popular adapter that are compared for a request."
    )
    fallbacks: int = Field(
        2, ge=0, description="Further replicas named for a request, should the first refuse it."
    )


@dataclass(frozen=True)
class Choice:
    """A replica for a request.

    Attributes:
        replica: its name.
        route: why this one: "home", "replica_of_hot" for a further home of a popular adapter,
            "spill" where the homes are too busy or may not be used. Requests for the base have no
            home; theirs is "home" too.
    """

    replica: str
    route: Route


@dataclass(slots=True)
class _Replica:
    queue_length: int = 0
    in_slots: frozenset[str] = _NOWHERE
    in_host: frozenset[str] = _NOWHERE
    # In the order of their coming; clients may ask for names without end.
    coming: dict[str, None] = field(default_factory=dict)

    def holds(self, adapter: str) -> bool:
        return adapter in self.in_slots or adapter in self.in_host or adapter in self.coming


class AffinityRouter:
    """Ranks replicas for requests, from what it was last told of them.

    A call of `rank` looks at a handful of replicas, whatever their number. Use from one thread.

    Args:
        config: how.
        seed: of the draws among many homes, and for the base.
    """

    def __init__(self, config: AffinityConfig | None = None, seed: int = 0):
        self._config = config or AffinityConfig()
        self._random = random.Random(seed)
        self._ring = HashRing(self._config.virtual_nodes)
        self._popularity = Popularity(self._config.popularity_window)
        self._replicas: dict[str, _Replica] = {}
        self._names: list[str] = []
        self._homes: dict[str, list[str]] = {}
        self._total_queue = 0

    @property
    def replicas(self) -> Collection[str]:
        """Names of the replicas there are."""
        return self._replicas.keys()

    def set_replicas(self, replicas: Iterable[str]) -> None:
        """Say which replicas there are; what is known of those that stay is kept."""
        if not self._ring.set_members(replicas):
            return
        old = self._replicas
        self._names = sorted(self._ring.members)
        self._replicas = {name: old.get(name) or _Replica() for name in self._names}
        self._total_queue = sum(replica.queue_length for replica in self._replicas.values())
        self._homes.clear()

    def queue_length(self, replica: str) -> int:
        """Requests that wait or run there, as far as known; 0 for an unknown replica."""
        known = self._replicas.get(replica)
        return known.queue_length if known else 0

    def set_queue_length(self, replica: str, queue_length: int) -> None:
        """Say how many requests wait or run there; an unknown replica is ignored."""
        known = self._replicas.get(replica)
        if known is not None:
            self._total_queue += queue_length - known.queue_length
            known.queue_length = queue_length

    def set_adapters(
        self, replica: str, in_slots: Iterable[str], in_host: Iterable[str] = ()
    ) -> None:
        """Say which adapters a replica holds; an unknown replica is ignored."""
        known = self._replicas.get(replica)
        if known is not None:
            known.in_slots, known.in_host = frozenset(in_slots), frozenset(in_host)
            known.coming.clear()

    def add_adapter(self, replica: str, adapter: str) -> None:
        """Say that a replica is being given an adapter; what `set_adapters` says next counts."""
        known = self._replicas.get(replica)
        if known is not None and not known.holds(adapter):
            known.coming[adapter] = None
            if len(known.coming) > _MAX_COMING:
                del known.coming[next(iter(known.coming))]

    def holds(self, replica: str, adapter: str) -> bool:
        """Whether the adapter is in a slot or in host memory there, as far as known."""
        known = self._replicas.get(replica)
        return known is not None and known.holds(adapter)

    def count(self, adapter: str) -> None:
        """Count a request for the adapter's popularity; once, however often it is ranked."""
        self._popularity.count(adapter)

    def num_homes(self, adapter: str) -> int:
        """Replicas that the adapter is to be held by, by its share of the requests."""
        fair = self._popularity.share(adapter) * len(self._replicas) / self._config.load_factor
        return min(max(1, math.ceil(fair)), max(1, len(self._replicas)))

    def rank(self, adapter: str | None, avoid: Collection[str] = _NOWHERE) -> list[Choice]:
        """The replicas to try for a request, the best first.

        Args:
            adapter: whose requests are to meet, or None for the base, which all replicas hold.
            avoid: replicas not to name.

        Returns:
            1 + `fallbacks` choices, fewer where there are not so many; none without a replica.
        """
        limit = 1 + self._config.fallbacks
        if adapter is None:
            return self._rank_by_queue(limit, avoid)
        homes = self._homes_of(adapter)
        open_homes = [name for name in self._sample(homes) if name not in avoid]
        open_homes.sort(key=lambda name: self._cost(name, adapter))
        bound = self._bound()
        homes_ranked = [self._home_choice(name, homes) for name in open_homes]
        near = self._nearby(adapter, {*avoid, *homes})
        spill = [Choice(name, "spill") for name in near]
        # Sorting is stable: the free ones first, and of those the homes.
        choices = sorted(homes_ranked + spill, key=lambda choice: not self._is_free(choice, bound))
        return choices[:limit]

    def route_of(self, adapter: str | None, replica: str) -> Route:
        """Why a request that a replica has taken went there, as `Choice.route`."""
        if adapter is None:
            return "home"
        homes = self._homes_of(adapter)
        return self._home_choice(replica, homes).route if replica in homes else "spill"

    def _bound(self) -> float:
        mean = (self._total_queue + 1) / max(1, len(self._replicas))
        return max(self._config.free_queue, math.ceil(self._config.load_factor * mean))

    def _homes_of(self, adapter: str) -> list[str]:
        num_homes = self.num_homes(adapter)
        if num_homes == 1:
            self._homes.pop(adapter, None)
            return list(islice(self._ring.walk(adapter), 1))
        known = self._homes.get(adapter, [])
        if len(known) < num_homes:
            # Walked once: a popular adapter may have very many homes.
            known = self._homes[adapter] = list(islice(self._ring.walk(adapter), num_homes))
        return known[:num_homes]

    def _sample(self, homes: list[str]) -> list[str]:
        if len(homes) <= self._config.candidates:
            return homes
        return self._random.sample(homes, self._config.candidates)

    def _cost(self, name: str, adapter: str) -> float:
        replica = self._replicas[name]
        if adapter in replica.in_slots:
            return replica.queue_length
        is_near = replica.holds(adapter)
        return replica.queue_length + (
            self._config.host_cost if is_near else self._config.miss_cost
        )

    def _home_choice(self, name: str, homes: list[str]) -> Choice:
        return Choice(name, "home" if name == homes[0] else "replica_of_hot")

    def _is_free(self, choice: Choice, bound: float) -> bool:
        return self._replicas[choice.replica].queue_length < bound

    def _nearby(self, adapter: str, taken: Set[str]) -> list[str]:
        """The next replicas on the ring; those that hold the adapter first, then the nearest."""
        others = (name for name in self._ring.walk(adapter) if name not in taken)
        near = list(islice(others, self._config.fallbacks + _NEARBY))
        near.sort(key=lambda name: not self.holds(name, adapter))
        return near

    def _rank_by_queue(self, limit: int, avoid: Collection[str]) -> list[Choice]:
        names = self._names
        if avoid:
            names = [name for name in names if name not in avoid]
        drawn = self._random.sample(names, min(len(names), max(2, limit)))
        drawn.sort(key=self.queue_length)
        return [Choice(name, "home") for name in drawn[:limit]]
