"""A real server, trainer and Ray, and a real Prometheus that watches them."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from adapters import AdapterStore, base_fingerprint
from tests.cluster.watching import ROOT, Prometheus, propulsion_process, watching
from tests.serving import tiny
from tests.serving.live_server import LiveServer, free_port

BASE = ROOT / "examples" / "tiny_base" / "model"
ADAPTERS = ("a", "b", "c", "d", "e", "f", "g", "h")
DAMAGED = "damaged"
SPLIT = "split"

RAY = """
import ray, sys
ray.init(num_cpus=1, dashboard_port=int(sys.argv[2]), object_store_memory=80 * 1024**2,
         _node_ip_address="127.0.0.1", _temp_dir=sys.argv[1], log_to_driver=False)
print("ready", flush=True)
sys.stdin.read()
"""


@dataclass
class Stack:
    """The parts, and what watches them."""

    server: LiveServer
    trainer: subprocess.Popen[bytes]
    prometheus: Prometheus


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
        prometheus = stack.enter_context(watching(folder, server=address, ray_dir=ray_dir))
        run = _run_file(folder / "run", folder / "monitoring" / "targets")
        trainer = stack.enter_context(
            propulsion_process("train", str(run), log=folder / "trainer.log")
        )
        yield Stack(server, trainer, prometheus)


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
