"""`propulsion cluster monitor`, with a real Prometheus where there is one."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.cluster.watching import needs_prometheus
from tests.serving.live_server import free_port, wait_for

ROOT = Path(__file__).parents[3]
COMMAND = [sys.executable, "-m", "propulsion", "cluster", "monitor"]
GRAFANA_STAND_IN = """#!{python}
import http.server, json, os, sys
names = ("GF_SERVER_HTTP_ADDR", "GF_PATHS_PROVISIONING", "PROPULSION_DASHBOARDS",
         "PROPULSION_PROMETHEUS_URL")
json.dump({{name: os.environ[name] for name in names}}, open("{seen}", "w"))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/api/health" else 404)
        self.end_headers()
http.server.HTTPServer(
    (os.environ["GF_SERVER_HTTP_ADDR"], int(os.environ["GF_SERVER_HTTP_PORT"])), Handler
).serve_forever()
"""


class Monitor:
    """The command, with ports and a folder of its own."""

    def __init__(self, folder: Path, path: str = os.environ["PATH"], server: str = "127.0.0.1:1"):
        self.ports = [free_port() for _ in range(3)]
        names = ("port", "alertmanager-port", "grafana-port")
        options = [f"--{n}={p}" for n, p in zip(names, self.ports, strict=True)]
        self.url = f"http://127.0.0.1:{self.ports[0]}"
        self.process = subprocess.Popen(
            [*COMMAND, *options, f"--data-dir={folder}", f"--server={server}"],
            cwd=ROOT,
            env={**os.environ, "PATH": path},
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_until_ready(self) -> None:
        """Return once Prometheus answers."""
        wait_for(self.is_ready, 120)

    def is_ready(self) -> bool:
        """Whether Prometheus answers."""
        assert self.process.poll() is None, self.process.communicate()[1]
        try:
            return httpx.get(f"{self.url}/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    def has_scraped(self, server: str) -> bool:
        """Whether Prometheus knows of a scrape of that server, with whatever outcome."""
        query = f'count_over_time(up{{instance="{server}"}}[1h])'
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": query}).json()
        return bool(answer["data"]["result"])

    def stop(self, number: signal.Signals = signal.SIGINT) -> str:
        """Send a signal; what the command printed."""
        self.process.send_signal(number)
        printed = self.process.communicate(timeout=60)[1]
        assert self.process.returncode == 0, printed
        return printed


@pytest.mark.slow
@needs_prometheus
def test_ctrl_c_stops_everything_and_a_second_run_has_the_first_ones_data(tmp_path: Path) -> None:
    for server in ("127.0.0.1:1", "127.0.0.1:2"):
        monitor = Monitor(tmp_path / "data", server=server)
        monitor.wait_until_ready()
        rules = httpx.get(f"{monitor.url}/api/v1/rules").json()["data"]["groups"]
        assert {"propulsion-serving", "propulsion-training", "propulsion-cluster"} <= {
            group["name"] for group in rules
        }
        wait_for(lambda monitor=monitor, server=server: monitor.has_scraped(server), 60)
        known = monitor.has_scraped("127.0.0.1:1")
        printed = monitor.stop()
        assert f"Prometheus {monitor.url}" in printed
        for port in monitor.ports:
            with socket.socket() as probe:
                assert probe.connect_ex(("127.0.0.1", port)) != 0
    assert known, "the second run does not know what the first one scraped"


@pytest.mark.slow
@needs_prometheus
def test_grafana_is_started_with_our_dashboards_where_it_is_installed(tmp_path: Path) -> None:
    seen, program = tmp_path / "seen.json", tmp_path / "bin" / "grafana-server"
    program.parent.mkdir()
    program.write_text(GRAFANA_STAND_IN.format(python=sys.executable, seen=seen))
    program.chmod(0o755)
    monitor = Monitor(tmp_path / "data", f"{program.parent}:{os.environ['PATH']}")
    monitor.wait_until_ready()
    wait_for(seen.exists, 60)
    printed = monitor.stop(signal.SIGTERM)
    settings = json.loads(seen.read_text())
    assert settings["PROPULSION_PROMETHEUS_URL"] == monitor.url
    assert settings["GF_SERVER_HTTP_ADDR"] == "127.0.0.1"
    assert list(Path(settings["PROPULSION_DASHBOARDS"]).glob("*.json"))
    assert (Path(settings["GF_PATHS_PROVISIONING"]) / "datasources" / "propulsion.yaml").exists()
    assert "Grafana http://127.0.0.1:" in printed


def test_a_missing_prometheus_is_told_with_what_to_install(tmp_path: Path) -> None:
    monitor = Monitor(tmp_path / "data", path=str(tmp_path))
    printed = monitor.process.communicate(timeout=120)[1]
    assert monitor.process.returncode == 2
    assert "apt-get install prometheus" in printed
    assert not (tmp_path / "data").exists()


@needs_prometheus
def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        run = subprocess.run(
            [*COMMAND, f"--port={port}", f"--data-dir={tmp_path}"],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
    assert run.returncode == 2
    assert f"port {port} for Prometheus cannot be used" in run.stderr
