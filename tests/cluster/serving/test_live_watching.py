"""What Prometheus sees of a real gateway and its replicas, after faults and traffic."""

import contextlib
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest

from benchmarks.cluster.nodes import wait_for
from cluster.monitoring.panels.cluster import CLUSTER
from tests.serving.live_server import free_port

pytestmark = [
    pytest.mark.slow,
    pytest.mark.nightly,
    pytest.mark.skipif(
        shutil.which("prometheus") is None, reason="Debian's package prometheus is not installed"
    ),
]

# What others than the gateway and its replicas say is asked in tests/cluster/monitoring.
ELSEWHERE = ("_runs", "propulsion_cluster_queue_wait", "ray_")
VARIABLES = {"$__rate_interval": "15s", "$instance": ".*"}


@pytest.fixture(scope="module")
def prometheus(live, tmp_path_factory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("watching")
    key, port = folder / "key", free_port()
    key.write_text(live.keys["admin"])
    options = {
        "gateway": live.nodes.url.removeprefix("http://"),
        "credentials-file": key,
        "data-dir": folder / "monitoring",
        "ray-dir": folder,
        "port": port,
        "alertmanager-port": free_port(),
        "time-scale": 1 / 20,
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "propulsion", "cluster", "monitor"),
                *(f"--{name}={value}" for name, value in options.items()),
            ],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            yield client
    finally:
        process.terminate()
        process.wait(60)


def test_every_query_about_gateway_and_replicas_has_data(live, prometheus):
    queries = {
        query.expr
        for row in CLUSTER.rows
        for panel in row.panels
        for query in panel.queries
        if not panel.requires and not any(part in query.expr for part in ELSEWHERE)
    }
    assert queries
    empty = set(queries)

    def all_have_had_data() -> bool:
        live.complete("attn-1", "x")
        empty.difference_update([query for query in empty if has_data(prometheus, query)])
        return not empty

    with contextlib.suppress(TimeoutError):
        wait_for(all_have_had_data, 180)
    assert not empty


def has_data(prometheus: httpx.Client, expression: str) -> bool:
    """Whether there is a number now."""
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    answer = prometheus.get("/api/v1/query", params={"query": expression}).json()
    assert answer["status"] == "success", answer
    values = [float(series["value"][1]) for series in answer["data"]["result"]]
    return any(not math.isnan(value) for value in values)
