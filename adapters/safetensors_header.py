"""The header of a safetensors file: 8 bytes of length, JSON, then the tensors' bytes.

Read here rather than by the safetensors library, to name what is wrong with a damaged file and to
reach single tensors' bytes without loading or mapping the rest.
"""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Never

from propulsion.errors import AdapterCorruptError

MAX_HEADER_BYTES = 100_000_000

_LENGTH_BYTES = 8
_MAX_VALUES = 2**63
_DTYPE_BITS = {
    **dict.fromkeys(["F4"], 4),
    **dict.fromkeys(["F6_E2M3", "F6_E3M2"], 6),
    **dict.fromkeys(["BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"], 8),
    **dict.fromkeys(["F8_E4M3FNUZ", "F8_E5M2FNUZ"], 8),
    **dict.fromkeys(["I16", "U16", "F16", "BF16"], 16),
    **dict.fromkeys(["I32", "U32", "F32"], 32),
    **dict.fromkeys(["I64", "U64", "F64", "C64"], 64),
}


@dataclass(frozen=True)
class TensorInfo:
    """One tensor: `start` and `end` count bytes from the start of the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def num_values(self) -> int:
        """How many numbers the tensor holds."""
        return math.prod(self.shape)


def read_header(path: Path) -> Mapping[str, TensorInfo]:
    """Read and check the header of a safetensors file; its tensors by name, in file order.

    Raises:
        AdapterCorruptError: the file is truncated, too long or malformed. The message names it.
        OSError: it cannot be opened.
    """
    with path.open("rb") as file:
        found = os.fstat(file.fileno()).st_size
        _expect_bytes(path, _LENGTH_BYTES, found)
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if length > MAX_HEADER_BYTES:
            _refuse(path, f"its header claims {length} bytes, the format allows {MAX_HEADER_BYTES}")
        data_start = _LENGTH_BYTES + length
        _expect_bytes(path, data_start, found)
        raw = file.read(length)
    tensors = _parse(path, raw, data_start)
    end = data_start
    for name, tensor in tensors.items():
        if tensor.start != end:
            _refuse(path, f"tensor {name!r} starts at byte {tensor.start}, expected {end}")
        end = tensor.end
    _expect_bytes(path, end, found)
    if found > end:
        _refuse(path, f"expected {end} bytes, found {found}: there is data after the last tensor")
    return MappingProxyType(tensors)


def _parse(path: Path, raw: bytes, data_start: int) -> dict[str, TensorInfo]:
    try:
        if not raw.startswith(b"{"):
            raise ValueError("it does not start with '{'")
        text = raw.decode("utf-8")
        header = json.loads(
            text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_int=_count
        )
        _check_metadata(header.pop("__metadata__", {}))
        tensors = {name: _tensor(name, entry, data_start) for name, entry in header.items()}
    except (ValueError, RecursionError) as error:
        _refuse(path, f"its header is malformed: {error}")
    return dict(sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)))


def _tensor(name: str, entry: object, data_start: int) -> TensorInfo:
    # JSON can escape half a surrogate pair, which is no text.
    name.encode("utf-8")
    if not isinstance(entry, dict) or not entry.keys() >= {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"tensor {name!r} lacks dtype, shape or data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPE_BITS:
        raise ValueError(f"tensor {name!r} has unknown dtype {dtype!r}")
    if not _are_counts(shape) or math.prod(max(size, 1) for size in shape) >= _MAX_VALUES:
        raise ValueError(f"tensor {name!r} has no valid shape")
    if not _are_counts(offsets) or len(offsets) != 2:
        raise ValueError(f"tensor {name!r} has no valid data_offsets")
    bits = math.prod(shape) * _DTYPE_BITS[dtype]
    if bits != 8 * (offsets[1] - offsets[0]):
        raise ValueError(
            f"tensor {name!r} has {offsets[1] - offsets[0]} bytes, "
            f"{dtype} {shape} needs {bits // 8}"
        )
    return TensorInfo(dtype, tuple(shape), data_start + offsets[0], data_start + offsets[1])


def _are_counts(value: object) -> bool:
    # `type`, since JSON's true would pass for the integer 1.
    return isinstance(value, list) and all(type(item) is int for item in value)


def _check_metadata(value: object) -> None:
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise ValueError("__metadata__ does not map strings to strings")
    "".join([*value, *value.values()]).encode("utf-8")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        raise ValueError("a key is given twice")
    return mapping


def _count(digits: str) -> int:
    if digits.startswith("-"):
        raise ValueError(f"{digits} is negative")
    return int(digits)


def _no_constant(constant: str) -> Never:
    raise ValueError(f"{constant} is not JSON")


def _expect_bytes(path: Path, expected: int, found: int) -> None:
    if found < expected:
        _refuse(path, f"truncated: expected {expected} bytes, found {found}; copy or save it again")


def _refuse(path: Path, why: str) -> Never:
    raise AdapterCorruptError(f"{path}: {why}.")
