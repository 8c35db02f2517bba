"""The CUDA sources build for every GPU we support, without a warning, on a machine without one."""

import struct
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


def test_aligned_values_move_in_16_bytes(tmp_path: Path) -> None:
    source = next(path for path in sources("cuda") if path.parent.name == "gather_scale")
    ptx = tmp_path / "gather_scale.ptx"
    command = compiler._command(source, ptx, [90], strict=False)
    start = command.index("-gencode")
    subprocess.run(
        [*command[:2], "-std=c++20", "-ptx", "-arch=sm_90", *command[start + 4 :]], check=True
    )
    text = ptx.read_text()
    for access in ("ld.global.v4", "ld.global.nc.v4", "st.global.wb.v4"):
        assert access in text


FAT_BINARY = struct.pack("<I", 0xBA55ED50)
PTX, MACHINE_CODE = 1, 2


def code_in(library: bytes) -> set[tuple[int, int]]:
    """Kind and architecture of all device code in a library, from its fat binaries' headers."""
    found, position = set(), library.find(FAT_BINARY)
    while position >= 0:
        header_size, size = struct.unpack_from("<HQ", library, position + 6)
        entry, end = position + header_size, position + header_size + size
        while entry < end:
            kind, _, entry_header_size, entry_size = struct.unpack_from("<HHIQ", library, entry)
            found.add((kind, struct.unpack_from("<I", library, entry + 28)[0]))
            entry += entry_header_size + entry_size
        position = library.find(FAT_BINARY, end)
    return found


@pytest.mark.parametrize("source", sources("cuda"), ids=lambda source: source.parent.name)
def test_a_kernel_builds_for_every_architecture_without_a_warning(
    source: Path, tmp_path: Path
) -> None:
    library = tmp_path / compiler.library_name(source)
    compiler.build(source, library, compiler.ARCHITECTURES, strict=True)
    expected = {(MACHINE_CODE, architecture) for architecture in compiler.ARCHITECTURES}
    assert code_in(library.read_bytes()) == expected | {(PTX, max(compiler.ARCHITECTURES))}
    # It loads beside a torch for CPUs too: the stream is looked up when a kernel starts.
    torch.ops.load_library(library)
    assert "CUDA" in torch._C._dispatch_dump(f"propulsion::{source.parent.name}")
