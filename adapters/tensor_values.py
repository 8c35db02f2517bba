"""Whether a tensor in a safetensors file is finite, read in pieces and in any dtype."""

from pathlib import Path

import numpy as np

from adapters.safetensors_header import TensorInfo

_CHUNK_BYTES = 1 << 22

# A number of these dtypes is NaN or infinite exactly when all bits of the mask are set. This asks
# for no bfloat16 or float8 in numpy, which has neither.
_NON_FINITE_MASKS = {
    "F64": ("<u8", 0x7FF0_0000_0000_0000),
    "F32": ("<u4", 0x7F80_0000),
    "C64": ("<u4", 0x7F80_0000),
    "F16": ("<u2", 0x7C00),
    "BF16": ("<u2", 0x7F80),
    "F8_E5M2": ("u1", 0x7C),
    "F8_E4M3": ("u1", 0x7F),
    "F8_E8M0": ("u1", 0xFF),
}
_FNUZ_NAN = 0x80


def is_finite(path: Path, tensor: TensorInfo) -> bool:
    """Whether the tensor holds neither NaN nor infinity; integers and booleans never do."""
    with path.open("rb") as file:
        file.seek(tensor.start)
        remaining = tensor.end - tensor.start
        while remaining:
            raw = file.read(min(remaining, _CHUNK_BYTES))
            if not raw:
                raise OSError(f"{path} shrank while it was read")
            if not _all_finite(raw, tensor.dtype):
                return False
            remaining -= len(raw)
    return True


def _all_finite(raw: bytes, dtype: str) -> bool:
    if dtype.endswith("FNUZ"):
        return _FNUZ_NAN not in raw
    if dtype not in _NON_FINITE_MASKS:
        return True
    bits, mask = _NON_FINITE_MASKS[dtype]
    values = np.frombuffer(raw, dtype=bits)
    return not bool(np.any((values & values.dtype.type(mask)) == mask))
