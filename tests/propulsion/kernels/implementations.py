"""The implementation under test, by the environment variable PROPULSION_TEST_KERNELS.

- `native` (default): the C++ operators of the CPU.
- `torch`: the references themselves, through the operators.
- `triton`: the Triton kernels in Triton's interpreter (needs TRITON_INTERPRET=1).
- `emulated`: the CUDA sources compiled for the CPU (`cuda_emulation/`).
- `cuda`: whatever runs on the GPU.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import torch

from propulsion.kernels import compiler
from propulsion.kernels.build import sources
from propulsion.kernels.catalogue import KERNELS

IMPLEMENTATION = os.environ.get("PROPULSION_TEST_KERNELS", "native")
DEVICE = "cuda" if IMPLEMENTATION == "cuda" else "cpu"
HERE = Path(__file__).parent


def prepare() -> None:
    """Put the implementation under the dispatch key of the device."""
    if IMPLEMENTATION == "emulated":
        for source in sources("cuda"):
            torch.ops.load_library(emulated(source))
    elif IMPLEMENTATION == "triton":
        for kernel in KERNELS:
            kernel.use_triton("CPU")
    elif IMPLEMENTATION == "native":
        for kernel in KERNELS:
            backend = kernel.backend("cpu")
            assert backend.name == "native", backend.reason


def emulated(source: Path) -> Path:
    """A CUDA source compiled for the CPU; it stops the process at a misaligned access."""
    headers = HERE / "cuda_emulation"
    made_from = [*headers.rglob("*.h"), *(compiler._INCLUDE.rglob("*.*")), source]
    newest = max(path.stat().st_mtime_ns for path in made_from)
    folder = compiler.cache_folder() / "emulated"
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / f"{source.parent.name}_{newest}.so"
    if not library.exists():
        torch_root = Path(torch.__file__).parent
        compiler_path = compiler.cxx()
        assert compiler_path is not None
        command = [
            *(compiler_path, "-x", "c++", "-O1", "-std=c++20", "-fPIC", "-shared"),
            *("-ffp-contract=off", "-fsanitize=alignment", "-fno-sanitize-recover=all"),
            *("-Wall", "-Wno-unknown-pragmas", "-Werror"),
            *("-DPROPULSION_DEVICE=CPU", compiler._ABI),
            *(f"-I{headers}", f"-I{compiler._INCLUDE}", "-isystem", f"{torch_root}/include"),
            *("-o", str(library), str(source), f"-L{torch_root}/lib", "-ltorch_cpu"),
        ]
        subprocess.run(command, check=True, timeout=300)
    return library


def run_contract(implementation: str, **environment: str) -> None:
    """Run the tests of the contract on another implementation, in a process of its own."""
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", HERE / "test_contract.py"],
        env={
            **os.environ,
            "PROPULSION_TEST_KERNELS": implementation,
            "PROPULSION_KERNELS": "torch",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=550,
    )
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-3000:]


HAS_CXX = shutil.which(compiler.cxx() or "g++") is not None
