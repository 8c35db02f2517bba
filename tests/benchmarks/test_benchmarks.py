"""The benchmarks run, at sizes that say nothing of speed, and write what they promise."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow


def run(module: str, path: Path, *options: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", module, "--json", str(path), "--device", "cpu", *options],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(path.read_text())


SMALL = ("--layers", "1", "--hidden", "64")


def test_multi_adapter(tmp_path: Path) -> None:
    small = (*SMALL, "--vocabulary", "50", "--rounds", "1", "--steps", "3")
    result = run("benchmarks.multi_adapter", tmp_path / "result.json", *small)
    for count in (1, 2, 4, 8):
        assert result[f"speedup_{count}"] > 0
        assert result["memory_bytes"][str(count)] > result["base_bytes"]
    assert result["largest_weight_difference"] < 1e-4
    assert "memory_growth_per_adapter" in result


def test_training_step(tmp_path: Path) -> None:
    small = (*SMALL, "--batch", "1", "--tokens", "8", "--rounds", "2")
    result = run("benchmarks.training_step", tmp_path / "result.json", *small)
    for field in ("step_seconds", "activation_bytes"):
        assert result[field].keys() == {"base", "propulsion", "ia3", "lora"}


def test_training_run_meant_for_a_gpu(tmp_path: Path) -> None:
    small = (*SMALL, "--head", "32", "--intermediate", "96", "--vocabulary", "50", "--batch", "4")
    result = run(
        "benchmarks.gpu.training",
        tmp_path / "result.json",
        *(*small, "--tokens", "8", "--adapters", "2", "--rounds", "2"),
    )
    assert result["trainable_parameters"]["propulsion_mixed"] == (
        2 * result["trainable_parameters"]["propulsion"]
    )
    # A fresh adapter is the base, whichever method's it is.
    first = {method: losses[0] for method, losses in result["losses"].items()}
    assert first["propulsion"] == pytest.approx(first["lora"], abs=0.05)
    assert first["propulsion_mixed"] == pytest.approx(first["propulsion"], abs=0.05)


def test_kernels(tmp_path: Path) -> None:
    small = ("--tokens", "5", "--width", "512", "--slots", "3", "--rounds", "2", "--repeats", "1")
    result = run("benchmarks.kernels", tmp_path / "result.json", *small)
    assert result["cpu_speedup"] > 0
    assert len(result["kernels"]) == 12
    assert result["largest_difference"] < 1e-5
