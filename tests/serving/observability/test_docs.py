from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

from serving.observability.config import ObservabilityConfig
from serving.observability.metrics import BASE, ServeMetrics
from tests.serving.observability.test_metrics import State, touch

PAGE = Path(__file__).parents[3] / "docs" / "observability.md"
SUFFIXES = {"counter": "_total"}


def families() -> list[Metric]:
    """Every metric of the server, each with a sample."""
    registry = CollectorRegistry()
    metrics = ServeMetrics(1, registry)
    touch(metrics, BASE)
    metrics.set_worker_state(State())
    metrics.count_split("a", "v1")
    metrics.count_eviction()
    try:
        with metrics.load():
            raise OSError
    except OSError:
        pass
    return list(registry.collect())


def row(family: Metric) -> str:
    """The family's line in the page's table."""
    labels = {name for sample in family.samples for name in sample.labels} - {"le"}
    name = family.name + SUFFIXES.get(family.type, "")
    named = ", ".join(f"`{label}`" for label in sorted(labels))
    return f"| `{name}` | {family.type} | {named} | {family.documentation} |"


def test_the_page_lists_every_metric_as_the_server_describes_it():
    page = PAGE.read_text()
    missing = [row(family) for family in families() if row(family) not in page]
    assert not missing, "put into docs/observability.md:\n" + "\n".join(missing)
    listed = [line for line in page.splitlines() if line.startswith("| `propulsion_serve_")]
    assert len(listed) == len(families())


def test_every_metric_has_a_unit_or_is_a_count_and_belongs_to_the_server():
    for family in families():
        assert family.name.startswith("propulsion_serve_")
        assert len(family.documentation) > 10
        if family.type == "histogram":
            assert family.name.endswith("_seconds")


def test_the_page_names_every_option():
    page = PAGE.read_text()
    for name in ObservabilityConfig.model_fields:
        assert f"`--{name.replace('_', '-')}`" in page
