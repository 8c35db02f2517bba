"""Ray Train on a real local Ray: workers, a killed worker, and wrong input."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cluster.training.ray_cluster import rank_pids
from tests.trainer.runs import assert_same_weights, train_all, write_run
from trainer.result import read_result

pytestmark = pytest.mark.slow


def start(run_file: Path, *args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "propulsion", "train", str(run_file), "--ray", *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=400)
    return output


def test_run_survives_a_killed_worker(base: Path, tmp_path: Path) -> None:
    undisturbed = write_run(tmp_path / "undisturbed", base, training__steps=30)
    train_all(undisturbed)

    disturbed = write_run(tmp_path / "disturbed", base, training__steps=30)
    process = start(disturbed, "--workers", "2")
    checkpoints = tmp_path / "disturbed" / "out" / "checkpoints"
    deadline = time.monotonic() + 300
    while not (checkpoints.is_dir() and any(checkpoints.glob("step-*"))):
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.fail(finish(process))
        time.sleep(0.02)
    os.kill(rank_pids()[0], signal.SIGKILL)
    output = finish(process)
    assert process.returncode == 0, output
    assert "continues from" in output, "the worker was killed too late"
    result = read_result(tmp_path / "disturbed" / "out")
    assert result.steps == 30
    assert result.only.adapter == "tiny@v1"
    assert_same_weights(tmp_path / "disturbed" / "out", tmp_path / "undisturbed" / "out", 1e-5)


def test_wrong_input_is_told_before_ray_starts(base: Path, tmp_path: Path) -> None:
    run_file = write_run(tmp_path, base)
    with (tmp_path / "train.tsv").open("a") as file:
        file.write("no label\n")
    process = start(run_file)
    output = finish(process)
    assert process.returncode == 2
    assert "train.tsv:26: has 1 columns" in output
    assert "Traceback" not in output
    assert not (tmp_path / "out").exists()
