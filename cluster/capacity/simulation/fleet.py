"""Which replicas serve, start and drain."""

from __future__ import annotations

from cluster.capacity.simulation.autoscaling import Autoscaler, AutoscalerConfig
from cluster.capacity.simulation.replica import SimulatedReplica
from cluster.capacity.simulation.routing import Policy


class Fleet:
    """The replicas by name, and the autoscaler over them.

    Attributes:
        serving: those that get requests.
        starting: those that boot.
        draining: those that finish what they have.
        all_ever: every replica there has been.
    """

    def __init__(self, config: AutoscalerConfig | None, policy: Policy):
        self.serving: dict[int, SimulatedReplica] = {}
        self.starting: dict[int, SimulatedReplica] = {}
        self.draining: dict[int, SimulatedReplica] = {}
        self.all_ever: list[SimulatedReplica] = []
        self._policy = policy
        self._config = config
        self._autoscaler = Autoscaler(config) if config else None
        self._target = 0
        self._next_look = 0.0
        self._next_sample = 0.0
        self._since: dict[int, float] = {}
        self._spent = 0.0

    @property
    def ongoing(self) -> int:
        """Requests that have not ended."""
        replicas = [*self.serving.values(), *self.draining.values()]
        return sum(len(replica.ongoing) for replica in replicas)

    def add(
        self, name: int, replica: SimulatedReplica, now: float, *, starting: bool = False
    ) -> None:
        """Take in a replica, which costs from now on."""
        (self.starting if starting else self.serving)[name] = replica
        self.all_ever.append(replica)
        self._since[name] = now
        if not starting:
            self._target = len(self.serving)

    def new_name(self) -> int:
        """A name that no replica has had."""
        return len(self.all_ever)

    def is_starting(self, name: int) -> bool:
        """Whether the replica boots."""
        return name in self.starting

    def serve(self, name: int) -> None:
        """A replica has booted."""
        self.serving[name] = self.starting.pop(name)

    def get(self, name: int) -> SimulatedReplica | None:
        """A replica that has requests or may get them; None once it is gone."""
        return self.serving.get(name) or self.draining.get(name)

    def remove(self, name: int, now: float) -> SimulatedReplica:
        """Take out a replica, which costs no more."""
        places = (self.serving, self.starting, self.draining)
        place = next(place for place in places if name in place)
        self._spent += now - self._since.pop(name)
        return place.pop(name)

    def retire_if_drained(self, name: int, now: float) -> None:
        """Take out a draining replica that has nothing left to do."""
        if name in self.draining and not self.draining[name].ongoing:
            self.remove(name, now)

    def tell_policy(self) -> None:
        """Say who serves, and how busy they are."""
        self._policy.set_replicas(list(self.serving))
        for name, replica in self.serving.items():
            self._policy.set_ongoing(name, len(replica.ongoing))

    def control(self, now: float) -> int:
        """Let the autoscaler look; how many replicas to start. Surplus ones begin to drain."""
        if self._autoscaler is None or self._config is None:
            return 0
        if now >= self._next_sample:
            self._autoscaler.observe(now, self.ongoing)
            self._next_sample += self._config.metrics_interval_s
        if now < self._next_look:
            return 0
        self._next_look += self._config.control_interval_s
        self._target = self._autoscaler.decide(now, len(self.serving), self._target)
        surplus = len(self.serving) + len(self.starting) - self._target
        for name in list(self.starting)[::-1][: max(0, surplus)]:
            self.remove(name, now)
            surplus -= 1
        if surplus > 0:
            self._drain(surplus, now)
        return max(0, -surplus)

    def replica_seconds(self, now: float) -> float:
        """What all replicas took together until now."""
        return self._spent + sum(now - since for since in self._since.values())

    def _drain(self, number: int, now: float) -> None:
        # The youngest first: its cache is the least warm.
        names = list(self.serving)[1:][::-1][:number]
        for name in names:
            self.draining[name] = self.serving.pop(name)
        self.tell_policy()
        for name in names:
            self.retire_if_drained(name, now)
