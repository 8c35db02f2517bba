"""What is simulated."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.capacity.simulation.autoscaling import AutoscalerConfig
from cluster.capacity.simulation.traffic import Lengths, Rate
from cluster.capacity.times import ReplicaTimes
from cluster.serving.affinity import AffinityConfig
from propulsion.errors import ConfigError


@dataclass(frozen=True)
class Scenario:
    """A fleet and its traffic.

    Attributes:
        times: what a replica takes.
        replicas: how many serve at the start.
        policy: how requests are routed: affinity, round_robin or two_choices.
        affinity: settings of the affinity router; its defaults if None.
        num_requests: requests in all.
        rate: their arrivals a second.
        num_adapters, zipf_exponent: what they ask for.
        prompt, output: their lengths.
        seed: equal seeds give equal results.
        warm: whether caches begin as traffic of this kind would leave them, or empty.
        report_seconds: how often replicas tell the router which adapters they hold.
        autoscaler: None keeps the number of replicas.
        failures: (seconds, how many) replicas that die at once; others are started for them.
    """

    times: ReplicaTimes
    replicas: int
    policy: str
    num_requests: int
    rate: Rate
    num_adapters: int
    zipf_exponent: float
    prompt: Lengths
    output: Lengths
    seed: int = 0
    warm: bool = True
    report_seconds: float = 2.0
    affinity: AffinityConfig | None = None
    autoscaler: AutoscalerConfig | None = None
    failures: tuple[tuple[float, int], ...] = ()

    def __post_init__(self) -> None:
        for name in ("replicas", "num_requests", "num_adapters"):
            if getattr(self, name) < 1:
                raise ConfigError(f"scenario: {name} must be at least 1, not {getattr(self, name)}")
        if min(self.rate.per_second) <= 0:
            raise ConfigError("scenario: every rate must be above 0 requests a second")
        if self.zipf_exponent < 0:
            raise ConfigError(f"scenario: zipf_exponent must not be below 0: {self.zipf_exponent}")
