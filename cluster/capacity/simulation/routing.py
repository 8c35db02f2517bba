"""The routing policies that are compared: the product's own, and two that know no adapters."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, Protocol, get_args

from cluster.serving.affinity import AffinityConfig, AffinityRouter
from propulsion.errors import ConfigError

PolicyName = Literal["affinity", "round_robin", "two_choices"]


class Policy(Protocol):
    """Chooses a replica for each request, from how many requests each has."""

    def set_replicas(self, replicas: Sequence[int]) -> None:
        """Say which replicas take requests."""

    def choose(self, adapter: int) -> int:
        """The replica for a request; there must be one."""

    def set_ongoing(self, replica: int, ongoing: int) -> None:
        """Say how many requests a replica has."""

    def tell_adapters(self, replica: int, slots: Iterable[int], host: Iterable[int]) -> None:
        """Say what a replica reports to hold."""


class RoundRobin:
    """Each replica in turn, whatever is asked for."""

    def __init__(self) -> None:
        self._replicas: list[int] = []
        self._next = 0

    def set_replicas(self, replicas: Sequence[int]) -> None:
        """Say which replicas take requests."""
        self._replicas = list(replicas)

    def choose(self, adapter: int) -> int:
        """The next one."""
        self._next = (self._next + 1) % len(self._replicas)
        return self._replicas[self._next]

    def set_ongoing(self, replica: int, ongoing: int) -> None:
        """Of no interest here."""

    def tell_adapters(self, replica: int, slots: Iterable[int], host: Iterable[int]) -> None:
        """Of no interest here."""


class TwoChoices:
    """The less busy of two drawn at random, which is Ray Serve's own router without adapters."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._replicas: list[int] = []
        self._ongoing: dict[int, int] = {}

    def set_replicas(self, replicas: Sequence[int]) -> None:
        """Say which replicas take requests."""
        self._replicas = list(replicas)

    def choose(self, adapter: int) -> int:
        """The less busy of two."""
        drawn = self._random.sample(self._replicas, min(2, len(self._replicas)))
        return min(drawn, key=lambda replica: self._ongoing.get(replica, 0))

    def set_ongoing(self, replica: int, ongoing: int) -> None:
        """Say how many requests a replica has."""
        self._ongoing[replica] = ongoing

    def tell_adapters(self, replica: int, slots: Iterable[int], host: Iterable[int]) -> None:
        """Of no interest here."""


class Affinity:
    """The gateway's own router, spoken to in numbers."""

    def __init__(self, num_adapters: int, seed: int, config: AffinityConfig | None = None):
        self._config = config or AffinityConfig()
        self._router = AffinityRouter(self._config, seed)
        self._adapters = [adapter_name(adapter) for adapter in range(num_adapters)]
        self._index: dict[str, int] = {}
        self._name: dict[int, str] = {}

    def set_replicas(self, replicas: Sequence[int]) -> None:
        """Say which replicas take requests."""
        self._name = {replica: replica_name(replica) for replica in replicas}
        self._index = {name: replica for replica, name in self._name.items()}
        self._router.set_replicas(self._index)

    def choose(self, adapter: int) -> int:
        """The router's first choice, told to it as the gateway tells it."""
        name = self._adapters[adapter]
        replica = self._router.rank(name)[0].replica
        self._router.count(name)
        self._router.add_adapter(replica, name)
        return self._index[replica]

    @property
    def popularity_window(self) -> int:
        """Requests by which popularity is told."""
        return self._config.popularity_window

    def learn(self, adapters: Sequence[int]) -> None:
        """Count requests that are not routed, for the adapters' popularity."""
        for adapter in adapters:
            self._router.count(self._adapters[adapter])

    def homes(self, adapter: int) -> list[int]:
        """The replicas to which requests for the adapter go while all are idle."""
        name = self._adapters[adapter]
        num_homes = self._router.num_homes(name)
        # The router tells its choice of the moment only, a draw among the homes of a popular one.
        draws = 1 if num_homes == 1 else 6 * num_homes
        return sorted({self._index[self._router.rank(name)[0].replica] for _ in range(draws)})

    def set_ongoing(self, replica: int, ongoing: int) -> None:
        """Say how many requests a replica has."""
        if replica in self._name:
            self._router.set_queue_length(self._name[replica], ongoing)

    def tell_adapters(self, replica: int, slots: Iterable[int], host: Iterable[int]) -> None:
        """Say what a replica reports to hold."""
        if replica in self._name:
            names = self._adapters
            self._router.set_adapters(
                self._name[replica], (names[a] for a in slots), (names[a] for a in host)
            )


def adapter_name(adapter: int) -> str:
    """The name that the router hashes."""
    return f"adapter-{adapter:07d}"


def replica_name(replica: int) -> str:
    """The name that the router hashes."""
    return f"replica-{replica:05d}"


def make_policy(
    name: str, num_adapters: int, seed: int, affinity: AffinityConfig | None = None
) -> Policy:
    """A policy by name; `affinity` sets the router of that name.

    Raises:
        ConfigError: there is none of that name.
    """
    policies: dict[str, Callable[[], Policy]] = {
        "affinity": lambda: Affinity(num_adapters, seed, affinity),
        "round_robin": RoundRobin,
        "two_choices": lambda: TwoChoices(seed),
    }
    if name not in policies:
        raise ConfigError(f"policy {name!r} is unknown: use {', '.join(get_args(PolicyName))}")
    return policies[name]()
