"""What the gateway counts of its replicas, `propulsion_cluster_*`."""

from collections.abc import Mapping
from functools import cache

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

_RECOVERY_BOUNDS = (1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 45.0, 60.0, 90.0, 120.0, 300.0, 600.0)
REPLICA_STATES = ("running", "draining", "starting")


class ClusterMetrics:
    """The gateway's counters.

    Args:
        registry: where to register, the process's by default.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY):
        def name(text: str) -> str:
            return f"propulsion_cluster_{text}"

        self._routed = Counter(
            name("routed_requests_total"),
            "Requests that a replica took, by why it got them: home, replica_of_hot, spill, retry.",
            ["route"],
            registry=registry,
        )
        self._hits = Counter(
            name("affinity_hits_total"),
            "Requests whose adapter their replica held when they came.",
            registry=registry,
        )
        self._misses = Counter(
            name("affinity_misses_total"),
            "Requests whose adapter their replica had to load.",
            registry=registry,
        )
        self._retries = Counter(
            name("retries_total"),
            "Requests sent again because their replica was lost before the answer began.",
            registry=registry,
        )
        self._failed = Counter(
            name("failed_requests_total"),
            "Requests that failed because of replicas: none in time, or lost amid the answer.",
            registry=registry,
        )
        self._replicas = Gauge(
            name("replicas"), "Replicas: running, draining, starting.", ["state"], registry=registry
        )
        self._queues = Gauge(
            name("replica_queue_length"),
            "Requests that run or wait at a replica, as its gateway knows.",
            ["replica"],
            registry=registry,
        )
        self._recovery = Histogram(
            name("replica_recovery_seconds"),
            "Seconds from the loss of a replica until as many run as before.",
            buckets=_RECOVERY_BOUNDS,
            registry=registry,
        )

    def count_routed(self, route: str) -> None:
        """Count a request that a replica has taken."""
        self._routed.labels(route).inc()

    def count_affinity(self, was_resident: bool) -> None:
        """Count whether a request's adapter was there."""
        (self._hits if was_resident else self._misses).inc()

    def count_retry(self) -> None:
        """Count a request that is sent again."""
        self._retries.inc()

    def count_failure(self) -> None:
        """Count a request that failed because of replicas."""
        self._failed.inc()

    def set_replicas(self, counts: Mapping[str, int]) -> None:
        """Say how many replicas are in each of REPLICA_STATES."""
        for state in REPLICA_STATES:
            self._replicas.labels(state).set(counts.get(state, 0))

    def set_queue_length(self, replica: str, queue_length: int) -> None:
        """Say how long a replica's queue is."""
        self._queues.labels(replica).set(queue_length)

    def drop_replica(self, replica: str) -> None:
        """Forget a replica that is gone."""
        self._queues.remove(replica)

    def observe_recovery(self, seconds: float) -> None:
        """Record how long a lost replica took to be replaced."""
        self._recovery.observe(seconds)


@cache
def cluster_metrics() -> ClusterMetrics:
    """The process's own; the gateway and the router that Ray Serve makes for it share them."""
    return ClusterMetrics()
