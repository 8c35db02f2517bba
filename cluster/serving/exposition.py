"""Which metrics a gateway and a replica show, so that no request is counted twice."""

from collections.abc import Callable, Iterable

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

# What happens to a request is seen whole at the gateway alone, retries included; what the engine
# does, at the replicas.
_OF_REQUESTS = frozenset(
    {
        "propulsion_serve_requests",
        "propulsion_serve_errors",
        "propulsion_serve_request_seconds",
    }
)


class _Selected(Collector):
    def __init__(self, registry: CollectorRegistry, shows: Callable[[str], bool]):
        self._registry = registry
        self._shows = shows

    def collect(self) -> Iterable[Metric]:
        return (metric for metric in self._registry.collect() if self._shows(metric.name))


def gateway_registry(registry: CollectorRegistry = REGISTRY) -> CollectorRegistry:
    """A process's metrics without those that only a replica can know."""

    def shows(name: str) -> bool:
        return name in _OF_REQUESTS or not name.startswith("propulsion_serve_")

    return _selected(registry, shows)


def replica_registry(registry: CollectorRegistry = REGISTRY) -> CollectorRegistry:
    """A process's metrics without those that the gateway counts."""
    return _selected(registry, lambda name: name not in _OF_REQUESTS)


def _selected(registry: CollectorRegistry, shows: Callable[[str], bool]) -> CollectorRegistry:
    selected = CollectorRegistry(auto_describe=False)
    selected.register(_Selected(registry, shows))
    return selected
