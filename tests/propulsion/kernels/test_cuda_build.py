"""The CUDA sources build for every GPU we support, without a warning, on a machine without one."""

import struct
from pathlib import Path

import pytest
import torch

from propulsion.kernels import compiler
from propulsion.kernels.build import sources

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(compiler.nvcc() is None, reason="no nvcc"),
]

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
