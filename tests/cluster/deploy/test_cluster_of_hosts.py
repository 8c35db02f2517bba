"""`propulsion cluster up`, `exec` and `down` on hosts with sshd, by Ray's real launcher."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.deploy.namespace_hosts import Hosts, can_make_hosts, namespace_hosts

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not can_make_hosts(), reason="needs root, ip, unshare, sshd and rsync"),
]

ALIVE = """
import ray
ray.init(address="auto", logging_level="ERROR")
print("alive:", sorted(node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]))
"""
DASHBOARD = """
import urllib.error, urllib.request
try:
    urllib.request.urlopen("http://127.0.0.1:8265/api/jobs/")
except urllib.error.HTTPError as error:
    print("refused:", error.code)
"""


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    with namespace_hosts(tmp_path_factory.mktemp("hosts"), count=2) as hosts:
        yield hosts


def write(hosts: Hosts, **changes: Any) -> Path:
    head, *workers = hosts.addresses
    tree = {
        "name": "lab",
        "head": head,
        "workers": workers,
        "user": "root",
        "key": str(hosts.key),
        "known_hosts": str(hosts.known_hosts),
        "python": sys.prefix,
        "environment": {"PYTHONPATH": str(Path(__file__).parents[3])},
        "token_file": str(hosts.folder / "token"),
        "object_store_bytes": 80_000_000,
    }
    path = hosts.folder / "hosts.yaml"
    path.write_text(yaml.safe_dump({**tree, **changes}))
    return path


def cluster(hosts: Hosts, *args: str | Path) -> subprocess.CompletedProcess[str]:
    """`propulsion cluster ARGS`, as given beside the hosts."""
    command = [sys.executable, "-m", "propulsion", "cluster", *map(str, args)]
    environment = os.environ | {"RAY_TMPDIR": str(hosts.folder / "ray")}
    return subprocess.run(
        hosts.from_outside(command),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def test_a_cluster_starts_is_used_and_stops(hosts: Hosts) -> None:
    file = write(hosts)
    started = cluster(hosts, "up", file)
    assert started.returncode == 0, started.stdout
    assert "lab: started" in started.stdout

    everyone = f"alive: {list(hosts.addresses)}"
    deadline = time.monotonic() + 240
    while everyone not in (
        seen := cluster(hosts, "exec", file, "--", "python", "-c", ALIVE).stdout
    ):
        assert time.monotonic() < deadline, seen
        time.sleep(2)
    raylets = sorted(hosts.processes("raylet/raylet"))
    assert len(raylets) == 2

    assert (
        "refused: 401"
        in cluster(
            hosts, "exec", file, "--", "env", "-u", "RAY_AUTH_MODE", "python", "-c", DASHBOARD
        ).stdout
    )
    assert cluster(hosts, "exec", file, "--", "false").returncode == 1

    again = cluster(hosts, "up", file)
    assert "lab: runs already" in again.stdout
    assert sorted(hosts.processes("raylet/raylet")) == raylets, "what ran must run on"

    stopped = cluster(hosts, "down", file)
    assert stopped.returncode == 0, stopped.stdout
    assert hosts.processes("raylet/raylet") == []
    assert hosts.processes("gcs_server") == []


def test_a_host_that_is_not_who_it_was_is_refused(hosts: Hosts) -> None:
    other = hosts.folder / "other_known_hosts"
    lines = hosts.known_hosts.read_text().splitlines()
    keys = [line.split(" ", 1)[1] for line in lines]
    first, second = hosts.addresses
    other.write_text(f"{first} {keys[0]}\n{second} {keys[0]}\n")
    result = cluster(hosts, "up", write(hosts, known_hosts=str(other)))
    assert result.returncode == 2
    assert f"root@{second}: Host key verification failed" in result.stdout
    assert first not in result.stdout.split("cannot be used")[1]


def test_every_host_that_cannot_be_logged_in_to_is_named(hosts: Hosts) -> None:
    key = hosts.folder / "stranger"
    if not key.exists():
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)]
        subprocess.run(command, check=True)
    result = cluster(hosts, "up", write(hosts, key=str(key)))
    assert result.returncode == 2
    assert "2 host(s) cannot be used" in result.stdout
    for address in hosts.addresses:
        assert f"root@{address}" in result.stdout
