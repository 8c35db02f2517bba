"""A real Prometheus that watches, started as a user would start it, its time shortened."""

import contextlib
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from cluster.monitoring.panels.catalogue import DASHBOARDS
from tests.cluster.monitoring.promtool import alert_rules
from tests.serving.live_server import free_port, wait_for

ROOT = Path(__file__).parents[2]
TIME_SCALE = 1 / 20
WAIT_SECONDS = 300
QUEUE_ALERTS = {"PropulsionRunQueueStuck", "PropulsionRunsFailing"}
VARIABLES = {
    "$__rate_interval": "15s",
    "$role": "server",
    "$instance": ".*",
    "$run": ".*",
}

needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="Debian's package prometheus is not installed"
)


class Prometheus:
    """What it has measured, and the alerts that fire.

    Args:
        url: where it answers.

    Attributes:
        seen: names of the alerts that were waited for, and fired.
    """

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=30)
        self._began = time.time()
        self.seen: set[str] = set()

    def close(self) -> None:
        """Ask no more."""
        self._client.close()

    def is_ready(self) -> bool:
        """Whether it answers."""
        try:
            return self._client.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    def alerts(self) -> list[dict[str, Any]]:
        """Alerts that are firing."""
        answer = self._client.get("/api/v1/alerts").json()["data"]["alerts"]
        return [alert for alert in answer if alert["state"] == "firing"]

    def is_firing(self, name: str, **labels: str) -> bool:
        """Whether an alert with these labels is firing."""
        wanted = {"alertname": name, **labels}
        return any(wanted.items() <= alert["labels"].items() for alert in self.alerts())

    def wait_for_alerts(self, *names: str, **labels: str) -> None:
        """Return once each of them has been seen to fire; they need not fire together."""
        missing = set(names)
        deadline = time.monotonic() + WAIT_SECONDS
        while missing:
            assert time.monotonic() < deadline, f"{missing} did not fire: {self.state()}"
            missing -= {name for name in missing if self.is_firing(name, **labels)}
            self.seen |= set(names) - missing
            time.sleep(0.2)

    def wait_until_silent(self, *names: str) -> None:
        """Return once none of them fires."""
        deadline = time.monotonic() + WAIT_SECONDS
        while any(self.is_firing(name) for name in names):
            assert time.monotonic() < deadline, f"still firing: {self.state()}"
            time.sleep(0.2)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The expression's value now."""
        answer = self._client.get("/api/v1/query", params={"query": expression}).json()
        assert answer["status"] == "success", (expression, answer)
        return answer["data"]["result"]

    def history(self, expression: str) -> list[dict[str, Any]]:
        """Series with a number at any time since the watching began."""
        times = {"start": self._began, "end": time.time(), "step": "1s"}
        answer = self._client.get(
            "/api/v1/query_range", params={"query": expression, **times}
        ).json()
        assert answer["status"] == "success", (expression, answer)
        return [
            series
            for series in answer["data"]["result"]
            if any(not math.isnan(float(value)) for _, value in series["values"])
        ]

    def without_data(self, is_meant: Callable[[str], bool]) -> list[tuple[str, str]]:
        """Dashboards' panels and queries, among those that are meant, that never had a number."""
        return [
            (panel, expression)
            for panel, expression in dashboard_queries()
            if is_meant(expression) and not self.history(expression)
        ]

    def state(self) -> str:
        """What to look at when something does not come about."""
        firing = sorted({alert["labels"]["alertname"] for alert in self.alerts()})
        records = {
            "/".join(f"{v}" for k, v in row["metric"].items()): row["value"][1]
            for row in self.query('{__name__=~"up|propulsion:.*"}')
        }
        return f"firing {firing}, {records}"


@contextlib.contextmanager
def watching(folder: Path, **options: Any) -> Iterator[Prometheus]:
    """`propulsion cluster monitor` with these options, until the end of the block.

    Args:
        folder: for what it writes; targets are in `monitoring/targets`.
        options: of the command, with `_` for `-`.
    """
    port = free_port()
    options = {
        "data_dir": folder / "monitoring",
        "ray_dir": folder,
        "port": port,
        "alertmanager_port": free_port(),
        "time_scale": TIME_SCALE,
        **options,
    }
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    log = folder / "monitor.log"
    with propulsion_process("cluster", "monitor", *arguments, log=log):
        prometheus = Prometheus(f"http://127.0.0.1:{port}")
        wait_for(prometheus.is_ready, WAIT_SECONDS)
        try:
            yield prometheus
        finally:
            prometheus.close()


@contextlib.contextmanager
def propulsion_process(*command: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The command line in a process of its own, ended with the block."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "propulsion", *command],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        # One that is stopped ends only when it goes on.
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def dashboard_queries() -> list[tuple[str, str]]:
    """Panel and expression of every query that needs no more than a CPU, as Grafana would ask."""
    queries = []
    for dashboard in DASHBOARDS:
        for panel in (panel for row in dashboard.rows for panel in row.panels):
            for query in () if panel.requires else panel.queries:
                expression = query.expr
                for name, value in VARIABLES.items():
                    expression = expression.replace(name, value)
                queries.append((f"{dashboard.title}/{panel.title}", expression))
    return queries


def is_of_queue(expression: str) -> bool:
    """Whether a dashboard's query asks what the queue of runs exposes."""
    return any(name in expression for name in ("_runs", "cluster_queue_wait"))


def is_of_gateway(expression: str) -> bool:
    """Whether it asks what a gateway, or a replica behind one, exposes."""
    is_cluster = "cluster_" in expression or 'role="replica"' in expression
    return is_cluster and not is_of_queue(expression)


def is_of_neither(expression: str) -> bool:
    """Whether it asks what a server, a trainer or Ray exposes."""
    return not is_of_queue(expression) and not is_of_gateway(expression)


def alerts_of(*components: str) -> set[str]:
    """Names of all alerts that the rule files have for these components."""
    return {rule["alert"] for rule in alert_rules() if rule["labels"]["component"] in components}
