"""The CUDA sources build for every GPU we support, without a warning, on a machine without one."""

import subprocess
from pathlib import Path

import pytest
import torch

from propulsion.kernels import compiler
from propulsion.kernels.build import sources

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(compiler.nvcc() is None, reason="no nvcc"),
]


@pytest.mark.parametrize("source", sources("cuda"), ids=lambda source: source.parent.name)
def test_a_kernel_builds_for_every_architecture_without_a_warning(
    source: Path, tmp_path: Path
) -> None:
    library = tmp_path / compiler.library_name(source)
    compiler.build(source, library, compiler.ARCHITECTURES, strict=True)
    # Here as on a machine with CPUs alone: the stream is looked up when a kernel starts.
    torch.ops.load_library(library)
    assert "CUDA" in torch._C._dispatch_dump(f"propulsion::{source.parent.name}")
    nvcc = compiler.nvcc()
    assert nvcc is not None
    listed = subprocess.run(
        [Path(nvcc).with_name("cuobjdump"), "--list-elf", library],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for architecture in compiler.ARCHITECTURES:
        assert f"sm_{architecture}." in listed
