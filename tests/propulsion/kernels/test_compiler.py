"""Kernels built ahead of time, and what is said where they cannot be built."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from propulsion.kernels import compiler
from propulsion.kernels.build import sources


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A kernel's folder of our own, so that what is built there is found there alone."""
    folder = tmp_path / "gather_scale"
    folder.mkdir()
    original = next(path for path in sources("cpu") if path.parent.name == "gather_scale")
    return Path(shutil.copy(original, folder))


def test_what_was_built_ahead_of_time_is_preferred(
    source: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PROPULSION_CACHE", str(tmp_path / "cache"))
    assert compiler.find(source) is None
    compiled = compiler.compile_here(source)
    assert compiler.find(source) == compiled
    assert compiler.describe(compiled).startswith("compiled on this machine")
    built = source.parent / compiler.library_name(source)
    compiler.build(source, built, strict=True)
    assert compiler.find(source) == built
    assert compiler.describe(built) == f"built ahead of time: {built}"
    torch.ops.load_library(built)


def test_a_changed_source_is_another_library(source: Path) -> None:
    before = compiler.library_name(source)
    source.write_text(source.read_text() + "\n// changed\n")
    assert compiler.library_name(source) != before


def test_a_library_for_other_gpus_is_another_library() -> None:
    cuda = sources("cuda")[0]
    assert compiler.library_name(cuda) != compiler.library_name(cuda, (90,))


def test_what_the_compiler_said_is_in_the_error(source: Path, tmp_path: Path) -> None:
    source.write_text("this is not C++")
    with pytest.raises(compiler.BuildError, match="error: expected unqualified-id"):
        compiler.build(source, tmp_path / "library.so")


def test_without_nvcc_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(compiler, "nvcc", lambda: None)
    with pytest.raises(compiler.BuildError, match="CUDA toolkit"):
        compiler.build(sources("cuda")[0], tmp_path / "library.so", (90,))


@pytest.mark.slow
def test_the_command_builds_every_kernel_of_the_cpu(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "propulsion.kernels.build", "--device", "cpu", "--strict"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path)], capture_output=True, text=True, env={**os.environ}
    )
    assert done.returncode == 0, done.stderr
    names = {compiler.library_name(source) for source in sources("cpu")}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert len(names) == 6
