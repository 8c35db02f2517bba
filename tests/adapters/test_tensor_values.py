from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from adapters.safetensors_header import read_header
from adapters.tensor_values import is_finite

CHUNK_BYTES = 1 << 22
FLOATS = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.float8_e4m3fnuz,
    torch.float8_e5m2fnuz,
    torch.float8_e8m0fnu,
]


def saved_is_finite(path: Path, tensor: torch.Tensor) -> bool:
    save_file({"a": tensor}, path)
    return is_finite(path, read_header(path)["a"])


def bit_patterns(dtype: torch.dtype) -> torch.Tensor:
    """Every value of an 8- or 16-bit dtype; of a wider one, every value of its top 16 bits."""
    if dtype.itemsize == 1:
        return torch.arange(256, dtype=torch.int32).to(torch.uint8).view(dtype)
    top = torch.arange(-(2**15), 2**15, dtype=torch.int64).to(torch.int16)
    words = torch.zeros(2**16, dtype.itemsize // 2, dtype=torch.int16)
    words[:, -1] = top
    return words.view(dtype).flatten()


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_agrees_with_torch_on_every_bit_pattern(tmp_path: Path, dtype: torch.dtype) -> None:
    values = bit_patterns(dtype)
    finite = torch.isfinite(values.to(torch.float64))
    path = tmp_path / "a.safetensors"
    bytes_each = values.view(torch.uint8).view(len(values), dtype.itemsize)
    assert saved_is_finite(path, bytes_each[finite].flatten().view(dtype))
    bad = bytes_each[~finite]
    assert len(bad) > 0
    for pattern in bad[:: max(1, len(bad) // 16)]:
        assert not saved_is_finite(path, pattern.clone().view(dtype))


def test_bad_value_is_found_wherever_it_lies(tmp_path: Path) -> None:
    values = torch.zeros(2 * CHUNK_BYTES // 4 + 3)
    for position in (0, CHUNK_BYTES // 4, len(values) - 1):
        values.zero_()
        values[position] = float("nan")
        assert not saved_is_finite(tmp_path / "a.safetensors", values)
    assert saved_is_finite(tmp_path / "a.safetensors", torch.zeros_like(values))


def test_infinite_imaginary_part_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    assert saved_is_finite(path, torch.tensor([complex(1, 2)]))
    assert not saved_is_finite(path, torch.tensor([complex(1, float("inf"))]))


def test_integers_and_empty_tensors_are_finite(tmp_path: Path) -> None:
    assert saved_is_finite(tmp_path / "a.safetensors", torch.full((4,), -1, dtype=torch.int32))
    assert saved_is_finite(tmp_path / "a.safetensors", torch.empty(0))
