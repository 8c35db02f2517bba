"""A real server, trainer, Ray and Prometheus; gateway and queue are stood in for."""

import contextlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

from adapters import AdapterStore, base_fingerprint
from tests.cluster.monitoring.gateway_stand_in import GatewayStandIn, serving
from tests.serving import tiny
from tests.serving.live_server import LiveServer, free_port, wait_for

ROOT = Path(__file__).parents[3]
BASE = ROOT / "examples" / "tiny_base" / "model"
TIME_SCALE = 1 / 20
ADAPTERS = ("a", "b", "c", "d", "e", "f", "g", "h")
DAMAGED = "damaged"
SPLIT = "split"
WAIT_SECONDS = 300

RAY = """
import ray, sys
ray.init(num_cpus=1, dashboard_port=int(sys.argv[2]), object_store_memory=80 * 1024**2,
         _node_ip_address="127.0.0.1", _temp_dir=sys.argv[1], log_to_driver=False)
print("ready", flush=True)
sys.stdin.read()
"""


@dataclass
class Stack:
    """The parts, and what Prometheus knows of them."""

    server: LiveServer
    trainer: subprocess.Popen[bytes]
    prometheus: httpx.Client
    began: float = field(default_factory=time.time)

    def alerts(self) -> list[dict[str, Any]]:
        """Alerts that are firing."""
        answer = self.prometheus.get("/api/v1/alerts").json()["data"]["alerts"]
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
            time.sleep(0.2)

    def wait_until_silent(self, *names: str) -> None:
        """Return once none of them fires."""
        deadline = time.monotonic() + WAIT_SECONDS
        while any(self.is_firing(name) for name in names):
            assert time.monotonic() < deadline, f"still firing: {self.state()}"
            time.sleep(0.2)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The expression's value now."""
        answer = self.prometheus.get("/api/v1/query", params={"query": expression}).json()
        assert answer["status"] == "success", (expression, answer)
        return answer["data"]["result"]

    def history(self, expression: str) -> list[dict[str, Any]]:
        """Series with a number at any time since the stack began."""
        times = {"start": self.began, "end": time.time(), "step": "1s"}
        answer = self.prometheus.get(
            "/api/v1/query_range", params={"query": expression, **times}
        ).json()
        assert answer["status"] == "success", (expression, answer)
        return [
            series
            for series in answer["data"]["result"]
            if any(not math.isnan(float(value)) for _, value in series["values"])
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
def running_stack(folder: Path) -> Iterator[Stack]:
    """All parts, each in its own process, until the end of the block."""
    with contextlib.ExitStack() as stack:
        ray_dir = Path(tempfile.mkdtemp(prefix="ray_", dir="/tmp"))
        stack.callback(shutil.rmtree, ray_dir, ignore_errors=True)
        stack.enter_context(_ray(ray_dir, folder / "ray.log"))
        server = _start_server(folder)
        stack.callback(server.stop)
        address = server.url.removeprefix("http://")
        gateway = stack.enter_context(serving(GatewayStandIn(address)))
        data_dir = folder / "monitoring"
        port = free_port()
        options = {
            "server": address,
            "gateway": f"127.0.0.1:{gateway}",
            "queue": f"127.0.0.1:{gateway}",
            "ray-dir": ray_dir,
            "data-dir": data_dir,
            "port": port,
            "alertmanager-port": free_port(),
            "time-scale": TIME_SCALE,
        }
        stack.enter_context(
            _propulsion("cluster", "monitor", log=folder / "monitor.log", **options)
        )
        run = _run_file(folder / "run", data_dir / "targets")
        trainer = stack.enter_context(_propulsion("train", str(run), log=folder / "trainer.log"))
        url = f"http://127.0.0.1:{port}"
        client = stack.enter_context(httpx.Client(base_url=url, timeout=30))
        wait_for(lambda: _is_ready(client), WAIT_SECONDS)
        yield Stack(server, trainer, client)


def _is_ready(prometheus: httpx.Client) -> bool:
    try:
        return prometheus.get("/-/ready").status_code == 200
    except httpx.TransportError:
        return False


def _start_server(folder: Path) -> LiveServer:
    """A server with far fewer slots than adapters, one of which is damaged in the store."""
    store = AdapterStore(folder / "store")
    fingerprint = base_fingerprint(BASE)
    adapter = tiny.make_adapter(
        folder / "adapter", BASE, degree=3, target_modules=["q_proj", "down_proj"], seed=0
    )
    for name in (*ADAPTERS, DAMAGED, SPLIT, SPLIT):
        version = store.publish(adapter, name, base_fingerprint=fingerprint)
        if name == DAMAGED:
            weights = version.path / "adapter_model.safetensors"
            weights.chmod(0o644)
            weights.write_bytes(weights.read_bytes()[:-1] + b"\\xff")
    store.set_split(SPLIT, "both", {"v1": 0.5, "v2": 0.5})
    options = ("--max-adapters", "2", "--max-cpu-adapters", "6", "--served-name", "base")
    return LiveServer(
        BASE, store.path, folder / "server.log", *options, "--", "--max-num-seqs", "2"
    )


def _run_file(folder: Path, targets: Path) -> Path:
    """Three adapters: one learns, one learns and then diverges, one's loss is soon no number."""
    folder.mkdir()
    lines = (ROOT / "examples" / "data" / "sst2" / "test.tsv").read_text().splitlines()[1:65]
    texts = [{"prompt": "", "target": line.partition("\t")[0]} for line in lines]
    data = folder / "texts.jsonl"
    data.write_text("".join(json.dumps(text) + "\n" for text in texts))
    run = {
        "name": "live",
        "base": str(BASE),
        "output_dir": "out",
        "task": {"type": "causal_lm"},
        "data": {
            "train": str(data),
            "test": str(data),
            "records": {"format": "jsonl", "prompt": "prompt", "target": "target"},
            "prompt": "{text}",
            "max_length": 32,
        },
        "adapter": {"preset": "all", "degree": 15},
        "training": {"steps": 100_000, "batch_size": 8, "lr": 1e-4},
        "checkpoints": {"every": 50_000},
        "metrics_port": 0,
        "metrics_targets": str(targets),
        "adapters": {
            "calm": {},
            # The rate rises by 0.00002 a step; z^15 bears no more than a few hundredths.
            "rising": {"training": {"lr": 2.0, "warmup_ratio": 0.99}},
            "wild": {"training": {"lr": 1e6, "warmup_ratio": 0.0}},
        },
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(run))
    return path


@contextlib.contextmanager
def _propulsion(*command: str, log: Path, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    arguments = [f"--{name}={value}" for name, value in options.items()]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "propulsion", *command, *arguments],
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


@contextlib.contextmanager
def _ray(folder: Path, log: Path) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", RAY, str(folder), str(free_port())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n", log.read_text()
        yield
    finally:
        process.communicate()
