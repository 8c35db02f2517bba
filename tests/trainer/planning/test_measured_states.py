"""The plan of a tiny run against the tensors that are there when DeepSpeed trains it."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from transformers import LlamaConfig

from trainer.config import RunConfig, load_run
from trainer.planning.plan import make_plan
from trainer.planning.states import Placement

ROOT = Path(__file__).parents[3]
PLACEMENTS = [
    Placement(0),
    Placement(1),
    Placement(2),
    Placement(2, "cpu"),
    Placement(3),
    Placement(3, "cpu", "cpu"),
]


def tiny_run(folder: Path, placement: Placement, num_adapters: int) -> RunConfig:
    """Adapters with so many vectors that the rest of the tiny model does not hide them."""
    LlamaConfig(
        vocab_size=256,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
    ).save_pretrained(folder / "base")
    deepspeed = {"stage": placement.stage, "dtype": "bf16"}
    for key in ("offload_optimizer", "offload_param"):
        if getattr(placement, key) is not None:
            deepspeed[key] = getattr(placement, key)
    tree = {
        "name": "tiny",
        "base": "base",
        "output_dir": "out",
        "adapter": {"preset": "all", "num_vectors": 16},
        "data": {"train": "a.json", "test": "b.json", "records": {"format": "instruction"}},
        "training": {"steps": 2},
        "adapters": {f"degree-{k}": {"adapter": {"degree": k}} for k in range(1, num_adapters + 1)},
        "deepspeed": deepspeed,
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(tree))
    return load_run(path)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.slow
@pytest.mark.parametrize("index", range(len(PLACEMENTS)), ids=lambda i: PLACEMENTS[i].name)
@pytest.mark.parametrize("num_adapters", [1, 3])
def test_the_plan_is_the_memory_of_a_step(num_adapters: int, index: int, tmp_path: Path) -> None:
    found = tmp_path / "bytes.json"
    process = subprocess.run(
        [
            *[sys.executable, "-m", "tests.trainer.planning.measure"],
            *[tmp_path, str(index), str(num_adapters), found],
        ],
        cwd=ROOT,
        env={**os.environ, "DS_ACCELERATOR": "cpu", "MASTER_PORT": str(free_port())},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    run = tiny_run(tmp_path, PLACEMENTS[index], num_adapters)
    plan = make_plan(run, gpus_per_node=1)
    (own,) = [row.states for row in plan.memory if row.is_own]
    base = 2 * plan.counts.base
    # One rank holds all, so nothing is gathered; host and device are the same here.
    wanted = own.weights + own.gradients + own.optimizer + own.host
    measured = json.loads(found.read_text())
    assert measured == pytest.approx(wanted, rel=0.1)
    # Without the base, which would hide what is wrong with the rest.
    assert (measured - base) / plan.trained == pytest.approx(
        (wanted - base) / plan.trained, rel=0.1
    )
