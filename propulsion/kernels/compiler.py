"""Finds or compiles the C++ and CUDA of a kernel: ahead of time (`build.py`), or on its first use.

A library is one source compiled against torch's stable ABI as of 2.11: it holds for that torch and
later ones, and for any Python. Its file name carries a hash of all that it is made from.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch

from propulsion.errors import PropulsionError

logger = logging.getLogger(__name__)

ARCHITECTURES = (80, 86, 89, 90, 100, 120)
"""Compute capabilities, times ten, that a library built ahead of time holds."""

DISABLE = "PROPULSION_DISABLE_NATIVE"
"""Environment variable: if set, neither C++ nor CUDA is used."""

_INCLUDE = Path(__file__).with_name("include")
_ABI = "-DTORCH_TARGET_VERSION=0x020b000000000000"
_CXX_FLAGS = ("-O3", "-std=c++20", "-fPIC", "-shared", "-ffp-contract=off", "-Wall", "-Wextra")
_NVCC_FLAGS = ("-O3", "-std=c++20", "-shared", "-cudart", "static", "-Xcompiler", "-fPIC,-Wall")
_NVCC_STRICT = ("-Werror", "all-warnings", "-Xptxas", "-Werror", "-Xcompiler", "-Werror")


class BuildError(PropulsionError):
    """A kernel can be neither found nor compiled; the message says why and what would help."""


def find(source: Path) -> Path | None:
    """The library built ahead of time for a `cuda.cu` or `cpu.cpp`, or one compiled here before.

    Raises:
        BuildError: native kernels are switched off, or cannot run on this machine.
    """
    _check_machine(source)
    for_here = library_name(source, _architectures_here(source))
    places = (
        source.parent / library_name(source),
        source.parent / for_here,
        cache_folder() / for_here,
    )
    return next((place for place in places if place.exists()), None)


def compile_here(source: Path) -> Path:
    """Compile a kernel for this machine alone, into the cache; seconds on a CPU, a minute for CUDA.

    The cache is `$PROPULSION_CACHE/kernels`, by default `~/.cache/propulsion/kernels`. Of several
    processes one compiles, and the others wait for it.

    Raises:
        BuildError: there is no compiler, or it fails.
    """
    architectures = _architectures_here(source)
    library = cache_folder() / library_name(source, architectures)
    try:
        library.parent.mkdir(parents=True, exist_ok=True)
        with _lock(library.with_suffix(".lock")):
            if not library.exists():
                logger.info("compiling %s, once on this machine", source)
                build(source, library, architectures)
    except OSError as error:
        raise BuildError(f"{source.name} cannot be compiled: {error}") from error
    return library


def build(
    source: Path, library: Path, architectures: Sequence[int] = (), *, strict: bool = False
) -> None:
    """Compile one source into a shared library, put in place whole.

    Args:
        source: a `.cpp` or `.cu`.
        library: the file to make, in a folder that exists.
        architectures: for CUDA, compute capabilities times ten.
        strict: whether a warning is an error.

    Raises:
        BuildError: there is no compiler, or it fails; the message ends with what it said.
    """
    with tempfile.TemporaryDirectory(dir=library.parent) as made:
        built = Path(made) / library.name
        command = _command(source, built, architectures, strict)
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=900)
        except subprocess.SubprocessError as error:
            said = getattr(error, "stderr", None) or error
            raise BuildError(f"{' '.join(command)} failed:\n{said}") from error
        os.replace(built, library)


def library_name(source: Path, architectures: Sequence[int] = ARCHITECTURES) -> str:
    """File name of a source's library; it changes with the source, the headers and the flags."""
    key = hashlib.sha256(source.read_bytes())
    # Headers of both devices are .h, those of CUDA alone .cuh.
    for header in sorted(_INCLUDE.rglob("*.*h" if source.suffix == ".cu" else "*.h")):
        key.update(header.read_bytes())
    key.update(repr((_ABI, _CXX_FLAGS, _NVCC_FLAGS, platform.machine())).encode())
    if source.suffix == ".cu":
        key.update(repr(tuple(architectures)).encode())
    return f"{source.parent.name}_{source.stem}_{key.hexdigest()[:16]}.so"


def describe(library: Path) -> str:
    """Where a library comes from, for `propulsion doctor`."""
    if library.parent == cache_folder():
        return f"compiled on this machine: {library}"
    return f"built ahead of time: {library}"


def cache_folder() -> Path:
    """Where libraries compiled on first use are kept."""
    folder = os.environ.get("PROPULSION_CACHE") or Path.home() / ".cache" / "propulsion"
    return Path(folder) / "kernels"


def cxx() -> str | None:
    """The C++ compiler: $CXX, or g++."""
    return os.environ.get("CXX") or shutil.which("g++")


def nvcc() -> str | None:
    """The CUDA compiler: that of $CUDA_HOME, on the path, or where its installer puts it."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    places = [f"{home}/bin/nvcc"] if home else []
    places += [shutil.which("nvcc") or "", "/usr/local/cuda/bin/nvcc"]
    return next((place for place in places if place and os.access(place, os.X_OK)), None)


def _command(source: Path, library: Path, architectures: Sequence[int], strict: bool) -> list[str]:
    torch_root = Path(torch.__file__).parent
    # As a system's headers torch's own warnings are not ours.
    rest = [
        *(_ABI, f"-I{_INCLUDE}", "-isystem", f"{torch_root}/include"),
        *("-o", str(library), str(source), f"-L{torch_root}/lib", "-ltorch_cpu"),
    ]
    if source.suffix == ".cu":
        compiler = nvcc()
        if compiler is None:
            raise BuildError(
                "no nvcc: install the CUDA toolkit of torch's version, or set CUDA_HOME"
            )
        codes = [f"arch=compute_{a},code=sm_{a}" for a in architectures]
        # What comes after the newest architecture compiles its PTX when it loads it.
        codes.append(f"arch=compute_{architectures[-1]},code=compute_{architectures[-1]}")
        options = [option for code in codes for option in ("-gencode", code)]
        return [
            *(compiler, *_NVCC_FLAGS, *options, "--threads", "2"),
            *(_NVCC_STRICT if strict else ()),
            *rest,
        ]
    compiler = cxx()
    if compiler is None:
        raise BuildError("no C++ compiler: install g++ or set CXX")
    return [compiler, *_CXX_FLAGS, *(["-Werror"] if strict else []), *rest]


@cache
def _architectures_here(source: Path) -> tuple[int, ...]:
    """Of the GPUs that torch sees, for CUDA; nothing else depends on the machine."""
    if source.suffix != ".cu":
        return ()
    capabilities = {
        torch.cuda.get_device_capability(index) for index in range(torch.cuda.device_count())
    }
    return tuple(sorted(10 * major + minor for major, minor in capabilities))


def _check_machine(source: Path) -> None:
    if os.environ.get(DISABLE):
        raise BuildError(f"{DISABLE} is set")
    if not source.exists():
        raise BuildError(f"there is no {source.name} for this kernel")
    if source.suffix != ".cu":
        if platform.machine() != "x86_64":
            raise BuildError(f"the C++ operators are for x86-64, not {platform.machine()}")
        return
    if not torch.cuda.is_available():
        raise BuildError("torch sees no NVIDIA GPU")
    if min(_architectures_here(source)) < min(ARCHITECTURES):
        raise BuildError("the CUDA kernels are for compute capability 8.0 and newer")
    try:
        loaded = ctypes.CDLL("libtorch_cuda.so", mode=os.RTLD_NOLOAD)
    except OSError as error:
        raise BuildError(f"libtorch_cuda.so is not loaded: {error}") from error
    if not hasattr(loaded, "aoti_torch_get_current_cuda_stream"):
        raise BuildError("this torch does not tell its stream by the stable ABI: use 2.11 or newer")


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
