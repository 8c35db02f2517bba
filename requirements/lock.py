"""Regenerate the pinned locks: `python requirements/lock.py`. Needs uv and a package index.

The locks pin everything and are installed with `--no-deps`: vLLM's CPU build asks for torchvision,
torchaudio and torchcodec builds that need CUDA and then break `import transformers`.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
LEFT_OUT = {"torchvision", "torchaudio", "torchcodec"}
NEEDS_CUDA = re.compile(r"(nvidia|cuda)-")
HEADER = "# Made by requirements/lock.py from pyproject.toml; install with --no-deps.\n"

# PyTorch publishes its CPU wheels outside the package index, one file a Python version, and a
# machine may know just one of them. The pins are the same for both, so one Python resolves them.
PYTHON = "3.11"


def compile_lock(accelerator: str, *options: str) -> list[str]:
    """Pins of the project with the extras `accelerator` and dev, for Linux on x86-64."""
    command = [sys.executable, "-m", "uv", "pip", "compile", str(ROOT / "pyproject.toml")]
    command += ["--extra", accelerator, "--extra", "dev", "--python-version", PYTHON]
    command += ["--python-platform", "x86_64-manylinux_2_28", "--no-annotate", "--no-header"]
    output = subprocess.run([*command, *options], check=True, stdout=subprocess.PIPE, text=True)
    return [line for line in output.stdout.splitlines() if not line.startswith(("-", " ", "#"))]


def package(pin: str) -> str:
    return re.split(r"[=\[ ]", pin, maxsplit=1)[0]


def main() -> None:
    find_links = [f"--find-links={path}" for path in sys.argv[1:]]
    cpu = compile_lock("cpu", *(find_links or ["--torch-backend=cpu"]))
    cuda = compile_lock("cuda")
    for name, pins in {"cpu": cpu, "cuda": cuda}.items():
        kept = [
            pin
            for pin in pins
            if package(pin) not in LEFT_OUT
            and not (name == "cpu" and NEEDS_CUDA.match(package(pin)))
        ]
        (HERE / f"{name}.lock").write_text(HEADER + "\n".join(kept) + "\n")
        print(f"{name}.lock: {len(kept)} packages")


if __name__ == "__main__":
    main()
