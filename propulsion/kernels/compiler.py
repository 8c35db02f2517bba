"""Compiles a C++ kernel on its first use on a machine, and keeps it."""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch

logger = logging.getLogger(__name__)

_FLAGS = ("-O3", "-std=c++20", "-fPIC", "-shared", "-ffp-contract=off")

# torch's stable ABI as of 2.11: one binary for this torch and later ones.
_ABI = "-DTORCH_TARGET_VERSION=0x020b000000000000"


@cache
def load_kernel(source: Path) -> bool:
    """Load the operators that a C++ source registers, compiled for the installed torch.

    The library is kept in `$PROPULSION_CACHE` (default `~/.cache/propulsion`). Without a compiler,
    on another processor than x86-64, or with PROPULSION_DISABLE_NATIVE set, nothing is loaded.

    Returns:
        Whether the operators are there.
    """
    if os.environ.get("PROPULSION_DISABLE_NATIVE") or platform.machine() != "x86_64":
        return False
    try:
        torch.ops.load_library(_compiled(source))  # type: ignore[no-untyped-call]
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        detail = getattr(error, "stderr", None) or error
        logger.warning("%s is not used, its torch version is: %s", source.name, detail)
        return False
    return True


def _compiled(source: Path) -> Path:
    compiler = os.environ.get("CXX") or shutil.which("g++")
    if compiler is None:
        raise OSError("no C++ compiler: install g++ or set CXX")
    headers = Path(torch.__file__).parent / "include"
    libraries = Path(torch.__file__).parent / "lib"
    options = [*_FLAGS, _ABI, f"-I{headers}", f"-L{libraries}", "-ltorch_cpu"]
    key = hashlib.sha256(source.read_bytes())
    key.update("\0".join([compiler, torch.__version__, *options]).encode())
    folder = Path(os.environ.get("PROPULSION_CACHE") or Path.home() / ".cache" / "propulsion")
    library = folder / "kernels" / f"{source.parent.name}_{key.hexdigest()[:16]}.so"
    if not library.exists():
        library.parent.mkdir(parents=True, exist_ok=True)
        # Many processes may compile at once; each puts a whole file in place.
        with tempfile.TemporaryDirectory(dir=library.parent) as made:
            built = Path(made) / library.name
            command = [compiler, str(source), "-o", str(built), *options]
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
            os.replace(built, library)
    return library
