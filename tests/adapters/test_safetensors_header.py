import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors import safe_open
from safetensors.numpy import save, save_file

from adapters.safetensors_header import MAX_HEADER_BYTES, read_header
from propulsion.errors import AdapterCorruptError
from tests.adapters.properties import untimed

DTYPES = ["bool", "uint8", "int8", "int16", "float16", "int32", "float32", "int64", "float64"]
tensors = st.dictionaries(
    st.text(min_size=1, max_size=8).filter(lambda name: name != "__metadata__"),
    st.sampled_from(DTYPES).flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0))
    ),
    max_size=4,
)
SMALL = save({"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(3, np.float16)})
HEADER_END = 8 + int.from_bytes(SMALL[:8], "little")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("safetensors") / "model.safetensors"


def assert_reads_as_the_library_does(path: Path) -> None:
    content = path.read_bytes()
    header = read_header(path)
    with safe_open(path, framework="numpy") as library:
        assert set(header) == set(library.keys())
        for name, tensor in header.items():
            view = library.get_slice(name)
            assert tensor.dtype == view.get_dtype()
            assert list(tensor.shape) == view.get_shape()
            if tensor.dtype in {"F16", "F32", "F64"} and tensor.shape:
                assert content[tensor.start : tensor.end] == library.get_tensor(name).tobytes()


@untimed
@given(tensors=tensors)
def test_valid_file_reads_as_the_library_does(path: Path, tensors: dict[str, np.ndarray]) -> None:
    save_file(tensors, path, metadata={"format": "pt"})
    assert_reads_as_the_library_does(path)


@untimed
@given(tensors=tensors, data=st.data())
def test_truncation_is_refused_with_file_and_sizes(
    path: Path, tensors: dict[str, np.ndarray], data: st.DataObject
) -> None:
    whole = save(tensors)
    size = data.draw(st.integers(0, len(whole) - 1))
    path.write_bytes(whole[:size])
    with pytest.raises(AdapterCorruptError) as error:
        read_header(path)
    header_end = 8 + int.from_bytes(whole[:8], "little")
    expected = 8 if size < 8 else header_end if size < header_end else len(whole)
    assert str(path) in str(error.value)
    assert f"expected {expected} bytes, found {size}" in str(error.value)


@untimed
@given(
    edits=st.lists(
        st.tuples(st.integers(0, HEADER_END - 1), st.integers(0, 255)), min_size=1, max_size=4
    ),
    cut=st.integers(0, len(SMALL)) | st.just(len(SMALL)),
    tail=st.binary(max_size=4),
)
def test_damaged_file_is_refused_or_read_as_the_library_reads_it(
    path: Path, edits: list[tuple[int, int]], cut: int, tail: bytes
) -> None:
    damaged = bytearray(SMALL)
    for position, value in edits:
        damaged[position] = value
    path.write_bytes(bytes(damaged[:cut]) + tail)
    try:
        read_header(path)
    except AdapterCorruptError:
        return
    assert_reads_as_the_library_does(path)


# Tokens of the format in place of random bytes: JSON that parses, but means something else.
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 30) | st.sampled_from(["F32", "U8", "X"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=4,
)
entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "U8", "F4", "C64"]) | json_values,
        "shape": st.lists(st.integers(-1, 5), max_size=2) | json_values,
        "data_offsets": st.lists(st.integers(-1, 24), max_size=3) | json_values,
    }
)


@untimed
@given(
    header=st.dictionaries(st.sampled_from(["a", "b", "__metadata__"]), entries | json_values),
    size=st.integers(0, 24),
)
def test_well_formed_json_is_refused_or_read_as_the_library_reads_it(
    path: Path, header: dict[str, Any], size: int
) -> None:
    write(path, json.dumps(header).encode(), bytes(size))
    try:
        read_header(path)
    except AdapterCorruptError:
        return
    assert_reads_as_the_library_does(path)


def write(path: Path, header: bytes, data: bytes = b"") -> None:
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)


def entry(dtype: str = "U8", shape: Any = (4,), offsets: Any = (0, 4)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    ("header", "why"),
    [
        (b"[]", "does not start with '{'"),
        (b' {"a": 1}', "does not start with '{'"),
        (b"{", "malformed"),
        (b'{"a": "\xff"}', "malformed"),
        (b'{"a":' + b"[" * 100_000, "malformed"),
        (b'{"a": 1}', "lacks dtype"),
        (b'{"__metadata__": {"a": 1}}', "__metadata__"),
        (b'{"__metadata__": {"a": "\\ud800"}}', "malformed"),
        (json.dumps({"\ud800": entry()}).encode(), "malformed"),
        (json.dumps({"a": entry(dtype="F33")}).encode(), "unknown dtype 'F33'"),
        (json.dumps({"a": entry(dtype="F32")}).encode(), r"has 4 bytes, F32 \[4\] needs 16"),
        (json.dumps({"a": entry(shape=[True, 4])}).encode(), "no valid shape"),
        (json.dumps({"a": entry(shape=[4.0])}).encode(), "no valid shape"),
        (json.dumps({"a": entry(shape=[-2, -2])}).encode(), "negative"),
        (json.dumps({"a": entry(shape=[2**62, 4, 0], offsets=[0, 0])}).encode(), "valid shape"),
        (json.dumps({"a": entry(offsets=[0, 2, 4])}).encode(), "no valid data_offsets"),
        (json.dumps({"a": entry(offsets=[1, 5])}).encode(), "starts at byte"),
        (json.dumps({"a": entry(), "b": entry()}).encode(), "starts at byte"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b'{"a": {"dtype": "U8", "dtype": "U8"}}', "given twice"),
        (b'{"a": {"dtype": "F4", "shape": [7], "data_offsets": [0, 4]}}', "F4"),
        (b'{"a": ' + b"9" * 5000 + b"}", "malformed"),
    ],
)
def test_malformed_header_is_refused_saying_why(path: Path, header: bytes, why: str) -> None:
    write(path, header, bytes(4))
    with pytest.raises(AdapterCorruptError, match=why):
        read_header(path)


def test_data_after_the_last_tensor_is_refused(path: Path) -> None:
    path.write_bytes(SMALL + b"x")
    with pytest.raises(AdapterCorruptError, match=f"expected {len(SMALL)} bytes, found"):
        read_header(path)


def test_header_over_the_format_limit_is_refused_unread(path: Path) -> None:
    with path.open("wb") as file:
        file.write((MAX_HEADER_BYTES + 1).to_bytes(8, "little"))
        file.truncate(MAX_HEADER_BYTES + 100)
    with pytest.raises(AdapterCorruptError, match="the format allows 100000000"):
        read_header(path)
    path.unlink()


def test_half_byte_dtype_is_measured_in_bits(path: Path) -> None:
    write(path, json.dumps({"a": entry(dtype="F4", shape=[8])}).encode(), bytes(4))
    assert read_header(path)["a"].num_values == 8
