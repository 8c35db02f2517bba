import json
import os
from pathlib import Path

import pytest

from adapters import AdapterStore
from propulsion.errors import AdapterCorruptError, AdapterNotFoundError


@pytest.fixture
def published(store: AdapterStore, adapter: Path) -> Path:
    """The folder of a@v1."""
    (adapter / "README.md").write_text("# A")
    return store.publish(adapter, "a").path


def test_whole_version_passes_by_reference_and_by_value(
    store: AdapterStore, published: Path
) -> None:
    assert store.verify("a") == store.verify("a@v1") == store.verify(store.list()[0])
    assert store.verify("a").path == published


def test_unknown_version_is_not_found(store: AdapterStore, published: Path) -> None:
    with pytest.raises(AdapterNotFoundError):
        store.verify("a@v2")


@pytest.mark.parametrize("file", ["adapter_config.json", "adapter_model.safetensors", "README.md"])
def test_one_flipped_bit_is_found_in_any_file(
    store: AdapterStore, published: Path, file: str
) -> None:
    content = bytearray((published / file).read_bytes())
    content[-1] ^= 1
    (published / file).write_bytes(content)
    with pytest.raises(AdapterCorruptError, match=f"{published / file} has changed: .*sha256"):
        store.verify("a")


@pytest.mark.parametrize("file", ["adapter_config.json", "adapter_model.safetensors", "README.md"])
def test_missing_file_is_named(store: AdapterStore, published: Path, file: str) -> None:
    (published / file).unlink()
    with pytest.raises(AdapterCorruptError, match=f"{published / file} cannot be read: No such"):
        store.verify("a")


def test_truncated_file_is_named_with_both_sizes(store: AdapterStore, published: Path) -> None:
    weights = published / "adapter_model.safetensors"
    size = weights.stat().st_size
    os.truncate(weights, size - 1)
    with pytest.raises(AdapterCorruptError, match=f"expected {size} bytes, found {size - 1}"):
        store.verify("a")


def test_file_nobody_published_is_named(store: AdapterStore, published: Path) -> None:
    (published / "adapter_model.bin").write_bytes(b"pickle")
    with pytest.raises(AdapterCorruptError, match=r"adapter_model\.bin is not in the manifest"):
        store.verify("a")


def test_manifest_damaged_after_it_was_first_read_is_found(
    store: AdapterStore, published: Path
) -> None:
    version = store.resolve("a")
    (published / "manifest.json").unlink()
    with pytest.raises(AdapterCorruptError, match=r"manifest\.json"):
        store.verify(version)


@pytest.mark.parametrize(
    ("key", "value"),
    [("peft_type", "LORA"), ("num_parameters", 1), ("base_model_name_or_path", "")],
)
def test_manifest_that_contradicts_the_files_is_refused(
    store: AdapterStore, published: Path, key: str, value: object
) -> None:
    path = published / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(AdapterCorruptError, match=f"about {key}"):
        store.verify("a")


def test_matching_checksum_does_not_excuse_bad_content(
    store: AdapterStore, published: Path
) -> None:
    import hashlib

    weights, manifest = published / "adapter_model.safetensors", published / "manifest.json"
    content = weights.read_bytes()[:-4] + b"\x00\x00\xc0\x7f"
    weights.write_bytes(content)
    values = json.loads(manifest.read_text())
    values["files"][weights.name]["sha256"] = hashlib.sha256(content).hexdigest()
    manifest.write_text(json.dumps(values))
    with pytest.raises(AdapterCorruptError, match="holds NaN or infinity"):
        store.verify("a")


def test_pipe_in_place_of_a_file_does_not_hang(store: AdapterStore, published: Path) -> None:
    (published / "README.md").unlink()
    os.mkfifo(published / "README.md")
    with pytest.raises(AdapterCorruptError, match=r"README\.md cannot be read: not a regular"):
        store.verify("a")
