from pathlib import Path

import pytest
from typer import Typer
from typer.testing import CliRunner

from cluster.serving.cli import serve
from cluster.serving.config import cluster_serve_config
from propulsion.errors import ConfigError


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    for name in ("base", "store"):
        (tmp_path / name).mkdir()
    return {"base": tmp_path / "base", "store": tmp_path / "store"}


def test_the_single_servers_options_are_the_clusters_too(folders):
    config = cluster_serve_config(**folders, max_adapters=7, affinity={"load_factor": 2})
    assert config.max_adapters == 7
    assert config.affinity.load_factor == 2
    assert config.most_replicas == 1


def test_an_open_address_without_a_key_is_refused(folders):
    with pytest.raises(ConfigError, match="--api-key"):
        cluster_serve_config(**folders, host="0.0.0.0")


def test_fewer_replicas_at_most_than_at_least_are_refused(folders):
    with pytest.raises(ConfigError, match="max_replicas"):
        cluster_serve_config(**folders, min_replicas=3, max_replicas=2)


@pytest.mark.parametrize("options", [{"replicas": 2}, {"affinity": {"factor": 2}}])
def test_an_unknown_option_is_refused_by_name(folders, options):
    with pytest.raises(ConfigError, match=r"replicas|affinity"):
        cluster_serve_config(**folders, **options)


def test_paths_hold_on_other_nodes(folders, monkeypatch):
    monkeypatch.chdir(folders["base"].parent)
    config = cluster_serve_config(base="base", store="store", keys_file=None)
    assert config.base == folders["base"]
    assert config.store == str(folders["store"])
    assert cluster_serve_config(base="base", store="memory://x").store == "memory://x"


def test_the_command_tells_a_wrong_option_before_it_starts_anything(folders):
    app = Typer()
    app.command()(serve)
    options = ["--base", "nowhere", "--store", str(folders["store"])]
    result = CliRunner().invoke(app, options)
    assert isinstance(result.exception, ConfigError)
    assert "nowhere" in str(result.exception)


def test_help_has_the_options_of_both_and_no_nested_ones():
    app = Typer()
    app.command()(serve)
    result = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"})
    assert "--max-adapters" in result.output
    assert "--min-replicas" in result.output
    assert "--affinity" not in result.output
