"""The file of hosts, and what Ray's launcher is told about it."""

from __future__ import annotations

import re
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.deploy.hosts.config import HostsConfig, load_hosts
from cluster.deploy.hosts.launcher import make_token
from cluster.deploy.hosts.launcher_config import launcher_config
from propulsion.errors import ConfigError

TREE: dict[str, Any] = {
    "name": "lab",
    "head": "10.0.0.1",
    "workers": ["10.0.0.2", "gpu-3.example"],
    "user": "ml",
    "key": "key",
    "python": "/opt/propulsion",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "key").touch()
    return tmp_path


def write(folder: Path, **changes: Any) -> Path:
    path = folder / "hosts.yaml"
    path.write_text(yaml.safe_dump({**TREE, **changes}))
    return path


def prepared(config: HostsConfig) -> dict[str, Any]:
    """As `ray up` takes it: completed, and held against Ray's own schema."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    whole = prepare_config(launcher_config(config))
    validate_config(whole)
    return whole


def test_the_launcher_takes_the_configuration(folder: Path) -> None:
    config = load_hosts(write(folder))
    whole = prepared(config)
    assert whole["provider"]["head_ip"] == "10.0.0.1"
    assert whole["provider"]["worker_ips"] == ["10.0.0.2", "gpu-3.example"]
    assert whole["max_workers"] == 2
    assert whole["auth"] == {"ssh_user": "ml", "ssh_private_key": str(folder / "key")}


def test_the_launcher_would_refuse_a_wrong_one(folder: Path) -> None:
    import jsonschema
    from ray.autoscaler._private.util import prepare_config, validate_config

    whole = prepare_config(launcher_config(load_hosts(write(folder))))
    with pytest.raises(jsonschema.ValidationError):
        validate_config(whole | {"workers": 3})


def test_a_cluster_may_be_one_host(folder: Path) -> None:
    assert prepared(load_hosts(write(folder, workers=[])))["max_workers"] == 0


def test_ray_asks_for_a_token_and_its_dashboard_stays_at_home(folder: Path) -> None:
    whole = prepared(load_hosts(write(folder, object_store_bytes=100_000_000)))
    starts = [
        command
        for role in ("head", "worker")
        for command in whole[f"{role}_start_ray_commands"]
        if "ray start" in command
    ]
    assert len(starts) == 2
    for command in starts:
        assert "RAY_AUTH_MODE=token" in command
        assert "--object-store-memory=100000000" in command
        assert "export PATH=/opt/propulsion/bin:$PATH" in command
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert "--node-ip-address=10.0.0.1" in starts[0]
    assert list(whole["file_mounts"]) == ["~/.ray/auth_token"]


def test_a_variable_cannot_end_the_command_it_is_in(folder: Path) -> None:
    config = load_hosts(write(folder, environment={"NCCL_DEBUG": "WARN; rm -rf /"}))
    (start,) = [
        one for one in launcher_config(config)["worker_start_ray_commands"] if "start" in one
    ]
    assert "NCCL_DEBUG='WARN; rm -rf /'" in start


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"head": None}, "head"),
        ({"worker": []}, "worker: Extra inputs"),
        ({"workers": ["10.0.0.2", "10.0.0.2"]}, "10.0.0.2: named more than once"),
        ({"workers": ["10.0.0.1"]}, "10.0.0.1: named more than once"),
        ({"workers": ["-oProxyCommand=true"]}, "workers.0"),
        ({"user": "ml@10.0.0.9"}, "user"),
        ({"python": "opt/propulsion"}, "python"),
        ({"key": "nokey"}, "nokey: no such file"),
        ({"files": {"/data/base": "nobase"}}, "nobase: no such file"),
        ({"environment": {"A B": "1"}}, "environment"),
        ({"name": "My Lab"}, "name"),
    ],
)
def test_wrong_files_of_hosts_are_told(folder: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_hosts(write(folder, **changes))
    assert said in str(error.value)


def test_the_documented_file_of_hosts_is_taken(folder: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "cluster" / "deploy.md").read_text()
    (block,) = [one for one in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "head:" in one]
    prepared(load_hosts(write(folder, **{**yaml.safe_load(block), "key": "key"})))


def test_a_missing_file_of_hosts_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file of hosts"):
        load_hosts(tmp_path / "hosts.yaml")


def test_a_token_is_made_once_and_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "token"
    make_token(path)
    token = path.read_text()
    assert len(token) == 64
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    make_token(path)
    assert path.read_text() == token
