"""A loader with its engine, metrics, and a clock that is turned by hand."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from prometheus_client import CollectorRegistry

from adapters import AdapterVersion
from serving.observability.metrics import ServeMetrics
from serving.registry.loader import AdapterLoader
from serving.registry.servable import Servable, single
from tests.serving.registry.engine_stand_in import EngineClientStandIn


def adapter(name: str, number: int = 1) -> Servable:
    return single(AdapterVersion(name, f"v{number}", Path("/store") / name / f"v{number}"))


class Bench:
    """A loader with its engine, metrics, and a clock that is turned by hand."""

    def __init__(self, capacity: int = 4, check: Callable[[AdapterVersion], None] | None = None):
        self.now = 0.0
        self.open: list[str] = []
        self.check = check or (lambda version: None)
        self.registry = CollectorRegistry()
        self.engine = EngineClientStandIn()
        metrics = ServeMetrics(8, self.registry)
        self.loader = AdapterLoader(
            self.engine, self.prepare, capacity, metrics, clock=lambda: self.now
        )

    @contextmanager
    def prepare(self, version: AdapterVersion) -> Iterator[AdapterVersion]:
        self.check(version)
        self.open.append(version.reference)
        yield version
        self.open.remove(version.reference)

    async def use(self, *names: str) -> None:
        """One request for each, one after the other."""
        for name in names:
            self.loader.release(await self.loader.acquire(adapter(name)))

    def sample(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"propulsion_serve_{name}", labels)
