"""Stages of ZeRO, numbers of ranks, and runs that are killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.trainer.runs import (
    assert_same_weights,
    free_port,
    losses,
    save_tiny_base,
    train,
    train_all,
    write_run,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def whole(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of nine steps on two ranks, at every stage."""
    folder = tmp_path_factory.mktemp("whole")
    train_all(
        *[
            write_run(folder / str(s), base, training__steps=9, deepspeed__stage=s)
            for s in range(4)
        ],
        ranks=2,
    )
    return folder


def test_every_stage_has_the_same_loss_curve(whole: Path) -> None:
    reference = losses(whole / "0" / "out")
    assert len(reference) == 9
    for stage in range(1, 4):
        assert losses(whole / str(stage) / "out") == pytest.approx(reference, abs=1e-4)


def test_two_then_one_then_two_ranks_continue_one_curve(
    base: Path, whole: Path, tmp_path: Path
) -> None:
    runs = [
        write_run(tmp_path / str(stage), base, training__steps=9, deepspeed__stage=stage)
        for stage in range(4)
    ]
    for until, ranks in ((3, 2), (6, 1)):
        train_all(str(until), *runs, ranks=ranks, module="tests.trainer.cut_off")
        for run in runs:
            assert (run.parent / "out" / "checkpoints" / f"step-{until}").is_dir()
            assert not (run.parent / "out" / "result.json").exists()
    train_all(*runs, ranks=2)
    for stage, run in enumerate(runs):
        out = run.parent / "out"
        assert losses(out) == pytest.approx(losses(whole / "0" / "out"), abs=1e-4)
        assert_same_weights(out, whole / str(stage) / "out", 1e-5)


def test_killed_rank_loses_only_the_steps_since_the_last_checkpoint(
    base: Path, tmp_path: Path
) -> None:
    # Long enough that the kill comes between the first checkpoint and the end.
    steps = {"training__steps": 60, "checkpoints__every": 5, "deepspeed__stage": 3}
    undisturbed = write_run(tmp_path / "undisturbed", base, **steps)
    run = write_run(tmp_path / "killed", base, **steps)
    train_all(undisturbed, ranks=2)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    command += [f"--master-port={free_port()}", "-m", "propulsion", "train", str(run)]
    with subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as launcher:
        checkpoints = tmp_path / "killed" / "out" / "checkpoints"
        deadline = time.monotonic() + 120
        while not list(checkpoints.glob("step-*")):
            assert time.monotonic() < deadline
            assert launcher.poll() is None
            time.sleep(0.02)
        (rank,) = ranks_of(launcher.pid)[-1:]
        os.kill(rank, signal.SIGKILL)
        assert launcher.wait(timeout=120) != 0
    assert not (tmp_path / "killed" / "out" / "adapters").exists()
    again = train(run, ranks=2)
    assert again.returncode == 0, again.stderr
    assert "continues from" in again.stderr
    assert_same_weights(tmp_path / "killed" / "out", tmp_path / "undisturbed" / "out", 1e-5)


def ranks_of(launcher: int) -> list[int]:
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    return [
        int(child)
        for child in children
        if b"propulsion" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]


def test_stage_3_loads_a_base_without_any_rank_holding_it_whole(tmp_path: Path) -> None:
    """The memory that is a process's own grows by its half, and by one layer at a time."""
    code = """
import sys, json, torch
from trainer.ranks import join_ranks
rank, world = join_ranks()
from trainer.config import DeepSpeedSection
from trainer.loading import load_base
import deepspeed, transformers, transformers.modeling_utils, transformers.integrations
import threading, time
def anonymous():
    lines = open("/proc/self/status").read().splitlines()
    return 1024 * next(int(l.split()[1]) for l in lines if l.startswith("RssAnon"))
peak, stop = [0], threading.Event()
def watch():
    while not stop.is_set():
        peak[0] = max(peak[0], anonymous()); time.sleep(0.005)
# What is loaded once is no part of the base.
load_base(sys.argv[2], "AutoModelForCausalLM", DeepSpeedSection(stage=3, dtype=sys.argv[3]))
before = anonymous()
thread = threading.Thread(target=watch); thread.start()
model = load_base(sys.argv[1], "AutoModelForCausalLM", DeepSpeedSection(stage=3, dtype=sys.argv[3]))
stop.set(); thread.join()
whole = sum(p.ds_numel * p.ds_tensor.element_size() for p in model.parameters())
part = sum(p.ds_tensor.numel() * p.ds_tensor.element_size() for p in model.parameters())
with deepspeed.zero.GatheredParameters(list(model.parameters())):
    total = sum(p.double().sum().item() for p in model.parameters())
print(json.dumps(dict(whole=whole, part=part, grown=peak[0] - before, total=total,
    dtypes=sorted({str(p.ds_tensor.dtype) for p in model.parameters()}))), flush=True)
"""
    import json

    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    script = tmp_path / "load.py"
    script.write_text(code)
    small = save_tiny_base(tmp_path / "small")
    base = tmp_path / "base"
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=1000,
        hidden_size=512,
        intermediate_size=1536,
        num_hidden_layers=24,
        num_attention_heads=8,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(base, max_shard_size="50MB")
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    expected = sum(p.double().sum().item() for p in model.parameters())
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, f"--master-port={free_port()}", script, base, small, "bf16"],
        capture_output=True,
        text=True,
        timeout=300,
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(Path.cwd()),
            "DS_ACCELERATOR": "cpu",
            # Freed memory is given back at once, so that what remains is what is held.
            "MALLOC_TRIM_THRESHOLD_": "0",
            "MALLOC_MMAP_THRESHOLD_": "65536",
        },
    )
    assert done.returncode == 0, done.stderr
    reports = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(reports) == 2
    for report in reports:
        assert report["dtypes"] == ["torch.bfloat16"]
        assert report["part"] == pytest.approx(report["whole"] / 2, rel=0.01)
        assert report["grown"] < 0.75 * report["whole"]
        assert report["total"] == pytest.approx(expected, abs=1e-6)
