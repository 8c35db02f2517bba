"""What a comparison was made with."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from importlib.metadata import version
from pathlib import Path

_PACKAGES = ("torch", "transformers", "peft", "deepspeed")


def provenance() -> dict[str, str]:
    """The command, the versions of what matters, and the machine in words."""
    from propulsion.version import __version__

    program = Path(sys.argv[0]).name
    return {
        "command": shlex.join([program, *sys.argv[1:]]),
        "versions": ", ".join(
            [
                f"Python {platform.python_version()}",
                f"propulsion {__version__}",
                *(f"{name} {version(name)}" for name in _PACKAGES),
            ]
        ),
        "machine": _machine(),
    }


def _machine() -> str:
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    words = f"{cores} CPU cores, {torch.get_num_threads()} threads ({platform.machine()})"
    if torch.cuda.is_available():
        words = f"{torch.cuda.get_device_name()}, {words}"
    return words
