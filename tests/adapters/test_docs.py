"""Every command and the code of docs/store.md run, in their order, on a folder and on a bucket."""

import os
import re
import shlex
from pathlib import Path

import pytest
import torch
from peft import IA3Config, LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from adapters import AdapterStore
from adapters.cli import app
from propulsion.config import PropulsionConfig

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "store.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^    propulsion adapters (.*)$", PAGE, re.MULTILINE)
BASE = "examples/tiny_base/model"
COMMIT = "ab" * 20


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with what the page speaks of; another adapter lies on "the hub"."""
    folder = tmp_path / "work"
    (folder / BASE).parent.mkdir(parents=True)
    (folder / BASE).symlink_to(ROOT / BASE)
    snapshots = tmp_path / "hub" / "models--owner--lora-adapter" / "snapshots"
    (snapshots.parent / "refs").mkdir(parents=True)
    (snapshots.parent / "refs" / "main").write_text(COMMIT)
    configs = {
        folder / "my-adapter": PropulsionConfig(preset="attn", task_type="CAUSAL_LM"),
        folder / "my-ia3-adapter": IA3Config(task_type="CAUSAL_LM"),
        snapshots / COMMIT: LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"),
    }
    for path, config in configs.items():
        model = AutoModelForCausalLM.from_pretrained(ROOT / BASE, dtype=torch.float32)
        get_peft_model(model, config).save_pretrained(path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["local", "s3"])
def test_commands_run_in_their_order(
    kind: str,
    folder: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    location = "store" if kind == "local" else f"s3://{request.getfixturevalue('bucket')}/prefix"
    monkeypatch.setenv("PROPULSION_STORE", location)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "home"))
    # The page assumes that there was a version before.
    AdapterStore(location).publish("my-adapter", "sst2")
    assert len(COMMANDS) > 15
    for command in COMMANDS:
        result = CliRunner().invoke(app, shlex.split(command), env={**os.environ})
        assert result.exit_code == 0, f"{command}: {result.output} {result.exception!r}"
    assert {"out", "out-ia3", "merged"} <= {path.name for path in folder.iterdir()}
    store = AdapterStore(location)
    assert store.resolve("sst2-lora").manifest.peft_type == "LORA"
    AdapterStore(location).set_alias("sst2", "prod", "v2")
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(code.replace("s3://bucket/prefix", location), {})
    assert "sst2/v2" in capsys.readouterr().out
