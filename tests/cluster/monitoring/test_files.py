"""The files that ship: valid, in step with their declarations, and inside the package."""

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.monitoring.panels.catalogue import DASHBOARDS, FOLDER, dashboard_files
from tests.cluster.monitoring.promtool import MONITORING, RULES, needs_promtool, promtool

ROOT = MONITORING.parents[1]
METRIC = re.compile(r"\b(?:propulsion_(?:serve|train|cluster)_\w+)")
DASHBOARD_FILES = sorted(FOLDER.glob("*.json"))


@needs_promtool
def test_the_shipped_configuration_is_valid() -> None:
    promtool("check", "config", MONITORING / "prometheus.yaml")


@pytest.mark.skipif(shutil.which("amtool") is None, reason="amtool comes with Alertmanager")
def test_the_example_of_alertmanager_is_valid() -> None:
    path = MONITORING / "alertmanager.yaml"
    run = subprocess.run(["amtool", "check-config", path], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


@needs_promtool
def test_the_scrape_configurations_for_kubernetes_are_valid(tmp_path: Path) -> None:
    settings = yaml.safe_load((MONITORING / "kubernetes" / "scrape.yaml").read_text())
    found = [job.pop("kubernetes_sd_configs", None) for job in settings["scrape_configs"]]
    # Debian builds Prometheus without Kubernetes' discovery; all but this line is checked.
    assert found == [[{"role": "pod"}], None, [{"role": "pod"}]]
    (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump(settings))
    promtool("check", "config", tmp_path / "prometheus.yaml")


def test_what_the_operator_reads_sets_the_same_roles() -> None:
    documents = list(yaml.safe_load_all((MONITORING / "kubernetes" / "operator.yaml").read_text()))
    assert [one["kind"] for one in documents] == ["PodMonitor", "PodMonitor", "ScrapeConfig"]
    for one in documents[:2]:
        relabelings = one["spec"]["podMetricsEndpoints"][0]["relabelings"]
        assert "role" in [rule["targetLabel"] for rule in relabelings]


def test_dashboards_are_what_is_declared() -> None:
    files = dashboard_files()
    assert set(DASHBOARD_FILES) == set(files)
    for path, text in files.items():
        assert path.read_text() == text, "run python -m cluster.monitoring.panels"


@pytest.mark.parametrize("path", DASHBOARD_FILES, ids=lambda path: path.stem)
def test_panels_have_a_place_of_their_own(path: Path) -> None:
    panels = json.loads(path.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells


@pytest.mark.parametrize("path", DASHBOARD_FILES, ids=lambda path: path.stem)
def test_panels_ask_the_chosen_source_and_explain_themselves(path: Path) -> None:
    dashboard = json.loads(path.read_text())
    names = {"datasource", *(one["name"] for one in dashboard["templating"]["list"])}
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            continue
        assert panel["description"].endswith(".")
        letters = [target["refId"] for target in panel["targets"]]
        assert letters == sorted(set(letters))
        for target in panel["targets"]:
            assert target["datasource"] == {"type": "prometheus", "uid": "$datasource"}
            used = set(re.findall(r"\$(\w+)", target["expr"])) - {"__rate_interval"}
            assert used <= names


def test_metrics_that_rules_and_dashboards_read_exist() -> None:
    exposed = metrics_of_server() | metrics_of_trainer() | metrics_of_gateway() | metrics_of_queue()
    texts = [path.read_text() for path in (*RULES, *DASHBOARD_FILES)]
    read = {name for text in texts for name in METRIC.findall(text)}
    assert len(read) > 30
    assert read <= exposed


def test_provisioning_names_the_dashboards_and_their_source() -> None:
    folder = MONITORING / "grafana" / "provisioning"
    sources = yaml.safe_load((folder / "datasources" / "propulsion.yaml").read_text())
    providers = yaml.safe_load((folder / "dashboards" / "propulsion.yaml").read_text())
    assert sources["datasources"][0]["url"] == "$PROPULSION_PROMETHEUS_URL"
    assert providers["providers"][0]["options"]["path"] == "$PROPULSION_DASHBOARDS"


def test_every_file_is_part_of_the_package() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = settings["tool"]["setuptools"]["package-data"]["cluster.monitoring"]
    packed = {path for pattern in patterns for path in MONITORING.glob(pattern)}
    kinds = ("*.yaml", "*.json")
    assert packed == {path for kind in kinds for path in MONITORING.rglob(kind)}


def test_dashboards_and_alerts_have_the_same_components() -> None:
    assert [dashboard.component for dashboard in DASHBOARDS] == ["serving", "training", "cluster"]


def metrics_of_server() -> set[str]:
    from prometheus_client import CollectorRegistry

    from serving.observability.metrics import ServeMetrics

    registry = CollectorRegistry()
    ServeMetrics(1, registry)
    return names_of(registry)


def metrics_of_gateway() -> set[str]:
    from prometheus_client import CollectorRegistry

    from cluster.serving.metrics import ClusterMetrics

    registry = CollectorRegistry()
    ClusterMetrics(registry)
    return names_of(registry)


def metrics_of_queue() -> set[str]:
    from cluster.training.queue_metrics import QueueMetrics

    metrics = QueueMetrics(0)
    try:
        return names_of(metrics.registry)
    finally:
        metrics.close()


def metrics_of_trainer() -> set[str]:
    from trainer.metrics import TrainMetrics

    metrics = TrainMetrics("run", 0)
    try:
        return names_of(metrics.registry)
    finally:
        metrics.close()


def names_of(registry: Any) -> set[str]:
    """What series of a registry can be called."""
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
    return {
        family.name + suffix
        for family in registry.collect()
        for suffix in suffixes.get(family.type, ("",))
    }
