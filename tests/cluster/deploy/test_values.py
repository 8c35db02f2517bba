"""The chart's values: what is refused, and that Helm refuses the same."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml

from cluster.deploy.kubernetes.chart_files import chart_files
from cluster.deploy.kubernetes.render import CHART, render
from cluster.deploy.kubernetes.values import Values, load_values
from propulsion.errors import ConfigError
from tests.cluster.deploy.values import FULL, SMALL, manifests


def changed(tree: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    new = copy.deepcopy(tree)
    *parents, last = path.split(".")
    part = new
    for key in parents:
        part = part.setdefault(key, {})
    if value is None:
        part.pop(last, None)
    else:
        part[last] = value
    return new


def write(folder: Path, tree: Any) -> Path:
    path = folder / "values.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("image", None, "image: Field required"),
        ("serving.replica", 2, "serving.replica: Extra inputs"),
        ("serving.keysSecret", None, "propulsion keys create"),
        ("serving.keysSecret", "API_KEYS", "keysSecret"),
        ("serving.tensorParallel", 4, "tensorParallel (4)"),
        ("serving.options", {"max_adapter": 1}, "serving.options.max_adapter: Extra inputs"),
        ("serving.options", {"max_adapters": 0}, "serving.options.max_adapters"),
        ("serving.workers.min", 9, "min (9) is above max (8)"),
        ("serving.workers.memory", "16 GB", "memory"),
        ("base.claim", "base", "either claim"),
        ("base.path", "models/base", "base.path"),
        ("runs.claim", None, "runs"),
        ("image.digest", "sha256:1", "digest"),
        ("training.run", {}, "run file is missing"),
        ("queue.settings", {"team": {}}, "queue.settings.team: Extra inputs"),
        (
            "training.run.adapter.degre",
            3,
            "values.yaml: training.run: 1 problem(s)\n  adapter.degre: unknown key",
        ),
        ("monitoring.interval", "often", "interval"),
    ],
)
def test_wrong_values_are_told(tmp_path: Path, path: str, value: Any, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_values(write(tmp_path, changed(FULL, path, value)))
    assert said in str(error.value)


def test_the_documented_walk_has_values_that_render(tmp_path: Path) -> None:
    page = (CHART.parents[2] / "docs" / "cluster" / "deploy.md").read_text()
    (block,) = [one for one in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "image:" in one]
    path = tmp_path / "values.yaml"
    path.write_text(block)
    load_values(path)
    found = manifests(yaml.safe_load(block))
    assert found["RayJob", "demo-training"]["spec"]["entrypoint"].endswith("--workers 8")
    assert ("RayService", "demo-serving") in found


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    tree = changed(changed(FULL, "image", None), "store.uri", "s3://x")
    with pytest.raises(ConfigError, match="2 problem") as error:
        load_values(write(tmp_path, tree))
    assert "store.uri" in str(error.value)


@pytest.mark.parametrize("text", ["- a list", "a: [", ""])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "values.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"values\.yaml"):
        load_values(path)


def test_a_store_in_a_folder_needs_the_volume_it_is_on() -> None:
    with pytest.raises(ValueError, match=r"runs\.claim"):
        Values.model_validate(changed(SMALL, "runs.claim", None))


def test_a_release_name_that_kubernetes_refuses_is_refused() -> None:
    with pytest.raises(ConfigError, match="Big_Name"):
        render(Values.model_validate(SMALL), release="Big_Name", namespace="ml")


def test_the_charts_own_files_are_those_of_the_values() -> None:
    for path, text in chart_files().items():
        assert path.read_text() == text, "run python -m cluster.deploy.kubernetes.chart_files"


@pytest.fixture(scope="module")
def chart() -> Any:
    with helm_python.Chart.load(CHART) as chart:
        yield chart


@pytest.mark.parametrize("tree", [FULL, SMALL])
def test_helm_makes_the_same_of_a_values_file_as_the_command(
    chart: Any, tree: dict[str, Any]
) -> None:
    by_helm = "\n---\n".join(chart.render(tree, name="demo", namespace="ml").values())
    ours = render(Values.model_validate(tree), release="demo", namespace="ml")

    def objects(text: str) -> list[Any]:
        found = [one for one in yaml.safe_load_all(text) if isinstance(one, dict) and "kind" in one]
        return sorted(found, key=lambda one: (one["kind"], one["metadata"]["name"]))

    assert objects(by_helm) == objects(ours)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("serving.replica", 2, "additional properties 'replica'"),
        ("serving.keysSecret", None, "API keys"),
        ("image", None, "repository"),
        ("serving.workers.max", 0, "minimum"),
    ],
)
def test_helm_refuses_wrong_values_too(chart: Any, path: str, value: Any, said: str) -> None:
    with pytest.raises(helm_python.HelmError) as error:
        chart.render(changed(FULL, path, value), name="demo", namespace="ml")
    assert said in str(error.value)


def test_helm_finds_nothing_wrong_with_the_chart() -> None:
    report = helm_python.chart.lint(CHART, FULL, strict=True)
    assert report["total_charts_linted"] == 1
    assert not report["errors"]
