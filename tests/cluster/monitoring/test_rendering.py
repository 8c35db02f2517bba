"""What `propulsion cluster monitor` writes for Prometheus."""

from pathlib import Path

import pytest
import yaml

from cluster.monitoring.config import MonitorConfig, monitor_config
from cluster.monitoring.rendering import SHIPPED, prometheus_settings, render
from propulsion.errors import ConfigError
from tests.cluster.monitoring.promtool import needs_promtool, promtool


def jobs(config: MonitorConfig) -> dict[str, dict]:
    return {job["job_name"]: job for job in prometheus_settings(config)["scrape_configs"]}


def test_targets_have_their_role_and_scheme(tmp_path: Path) -> None:
    render(
        monitor_config(
            servers=("127.0.0.1:8000", "https://models.example:443"),
            trainers=("http://127.0.0.1:9101/",),
            data_dir=tmp_path,
        )
    )
    servers = yaml.safe_load((tmp_path / "targets" / "servers.yaml").read_text())
    assert servers == [
        {"targets": ["127.0.0.1:8000"], "labels": {"role": "server"}},
        {"targets": ["models.example:443"], "labels": {"role": "server", "__scheme__": "https"}},
    ]
    trainers = yaml.safe_load((tmp_path / "targets" / "trainers.yaml").read_text())
    assert trainers == [{"targets": ["127.0.0.1:9101"], "labels": {"role": "trainer"}}]
    assert yaml.safe_load((tmp_path / "targets" / "queues.yaml").read_text()) == []


def test_a_gateway_is_asked_for_its_replicas() -> None:
    found = jobs(monitor_config(gateways=("10.0.0.1:8080", "https://gateway.example:443")))
    assert [source["url"] for source in found["propulsion-replicas"]["http_sd_configs"]] == [
        "http://10.0.0.1:8080/metrics/targets",
        "https://gateway.example:443/metrics/targets",
    ]
    assert "propulsion-replicas" not in jobs(MonitorConfig())


def test_the_key_goes_to_servers_and_gateways_alone(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("secret")
    found = jobs(monitor_config(gateways=("g:1",), credentials_file=key))
    expected = {"type": "Bearer", "credentials_file": str(key)}
    assert found["propulsion-serving"]["authorization"] == expected
    assert found["propulsion-replicas"]["authorization"] == expected
    assert found["propulsion-replicas"]["http_sd_configs"][0]["authorization"] == expected
    for job in ("propulsion-training", "ray"):
        assert "authorization" not in found[job]


@needs_promtool
@pytest.mark.parametrize("time_scale", [1.0, 0.02])
def test_what_is_written_is_valid(tmp_path: Path, time_scale: float) -> None:
    key = tmp_path / "key"
    key.write_text("secret")
    config = monitor_config(
        servers=("a:1",),
        gateways=("g:1",),
        credentials_file=key,
        time_scale=time_scale,
        data_dir=tmp_path,
    )
    promtool("check", "config", render(config, alertmanager=True))


def test_without_a_time_scale_the_rules_are_those_that_ship(tmp_path: Path) -> None:
    render(monitor_config(data_dir=tmp_path))
    for path in (SHIPPED / "rules").glob("*.yaml"):
        assert (tmp_path / "rules" / path.name).read_text() == path.read_text()


def test_targets_of_runs_and_of_the_user_outlive_a_start(tmp_path: Path) -> None:
    config = monitor_config(data_dir=tmp_path, servers=("a:1",))
    render(config)
    (tmp_path / "targets" / "run.json").write_text("[]")
    (tmp_path / "targets" / "serving-mine.yaml").write_text("[]")
    (tmp_path / "rules" / "left.yaml").write_text("groups: []")
    render(monitor_config(data_dir=tmp_path))
    assert (tmp_path / "targets" / "run.json").exists()
    assert (tmp_path / "targets" / "serving-mine.yaml").exists()
    assert not (tmp_path / "rules" / "left.yaml").exists()
    assert yaml.safe_load((tmp_path / "targets" / "servers.yaml").read_text()) == []


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("servers", ("localhost",), "'localhost' is no address"),
        ("servers", ("localhost:http",), "is no address"),
        ("gateways", ("ftp://a:1",), "is no address"),
        ("port", 0, "port"),
        ("time_scale", 2, "time_scale"),
        ("credentials_file", Path("nowhere"), "nowhere: there is no such file"),
        ("speed", 3, "speed"),
    ],
)
def test_a_wrong_option_is_named(option: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        monitor_config(**{option: value})
