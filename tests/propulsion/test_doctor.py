import json
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from typer.testing import CliRunner

from propulsion.doctor import doctor
from propulsion.kernels import compiler
from propulsion.kernels.catalogue import KERNELS


def run(*arguments: str) -> str:
    app = typer.Typer()
    app.command()(doctor)
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return result.stdout


def test_every_kernel_is_listed_with_what_runs_it_and_why() -> None:
    report: dict[str, Any] = json.loads(run("--json"))
    listed = {(choice["device"], choice["kernel"]): choice for choice in report["kernels"]}
    assert len(listed) == 2 * len(KERNELS)
    for kernel in KERNELS:
        choice = listed["cpu", kernel.name]
        assert choice["backend"] == "C++"
        assert "compiled on this machine" in choice["reason"]
        assert choice["reason"].endswith(".so")
    assert report["machine"]["torch"] == torch.__version__
    if not torch.cuda.is_available():
        assert listed["cuda", "scale_rope"]["backend"] == "nothing"
        assert "no NVIDIA GPU" in listed["cuda", "scale_rope"]["reason"]
        assert report["advice"] == []


def test_the_table_names_versions_and_kernels() -> None:
    text = run()
    for word in (torch.__version__, "C++ compiler", "scale_add_norm", "because"):
        assert word in text


def test_a_missing_compiler_comes_with_advice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def missing() -> None:
        return None

    monkeypatch.setattr(compiler, "cxx", missing)
    monkeypatch.setattr(compiler, "find", lambda source: None)
    for kernel in KERNELS:
        monkeypatch.setattr(kernel, "_backends", {})
    monkeypatch.setattr(compiler, "cache_folder", lambda: tmp_path)
    report = json.loads(run("--json"))
    assert {c["backend"] for c in report["kernels"] if c["device"] == "cpu"} == {"torch"}
    assert any("install g++" in line for line in report["advice"])
