"""compute-sanitizer finds nothing in the CUDA kernels."""

import os
import shutil
import subprocess
import sys

import pytest
import torch

from propulsion.kernels.catalogue import KERNELS

SANITIZER = shutil.which("compute-sanitizer") or shutil.which(
    "compute-sanitizer", path=f"{os.environ.get('CUDA_HOME', '/usr/local/cuda')}/bin"
)
CHECK = (
    sys.executable,
    "-m",
    "benchmarks.gpu.correctness",
    "--tokens",
    "5",
    "--widths",
    "64",
    "51",
)
# torch asks its driver for what it may not have; that is not ours.
OPTIONS = {"memcheck": ("--report-api-errors", "no"), "racecheck": ()}


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=550,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


def test_what_is_sanitized_says_whether_kernels_are_right() -> None:
    done = run(*CHECK, "--device", "cpu")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == "54 of 54 are right\n"


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.skipif(SANITIZER is None, reason="no compute-sanitizer")
@pytest.mark.parametrize("tool", OPTIONS)
def test_nothing_is_found(tool: str) -> None:
    assert SANITIZER is not None
    for kernel in KERNELS:
        # Compiled before, since a compiler is none of the sanitizer's business.
        assert kernel.backend("cuda").name == "native", kernel.name
    done = run(
        *(SANITIZER, "--tool", tool, "--target-processes", "application-only"),
        *("--error-exitcode", "9", *OPTIONS[tool], *CHECK),
        # torch's own blocks of memory would hide where a tensor ends.
        PYTORCH_NO_CUDA_MEMORY_CACHING="1",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "54 of 54 are right" in done.stdout
