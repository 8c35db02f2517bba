"""What holds of versions wherever the store is."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adapters import AdapterStore
from propulsion.errors import AdapterCorruptError, AdapterNotFoundError, ConfigError
from tests.adapters.contract.place import Place
from tests.adapters.folders import DELTA, write_adapter

FILES = ["adapter_config.json", "adapter_model.safetensors", "README.md"]


def test_place_without_anything_lists_as_empty(store: AdapterStore) -> None:
    assert store.list() == []
    assert store.names() == []
    with pytest.raises(AdapterNotFoundError, match="is empty"):
        store.resolve("anything")


def test_published_files_have_the_layout_of_the_contract(
    store: AdapterStore, place: Place, adapter: Path
) -> None:
    (adapter / "training_args.bin").write_bytes(b"not published")
    version = store.publish(adapter, "sst2")
    assert version.reference == "sst2@v1"
    files = {"adapter_config.json", "adapter_model.safetensors", "manifest.json"}
    assert place.paths() == {"sst2/aliases.json", *(f"sst2/v1/{file}" for file in files)}
    for file in files - {"manifest.json"}:
        assert place.read(f"sst2/v1/{file}") == (adapter / file).read_bytes()
    assert json.loads(place.read("sst2/aliases.json")) == {"latest": "v1"}
    assert store.where(version) == place.where("sst2/v1")


def test_manifest_says_what_was_given_and_found(store: AdapterStore, adapter: Path) -> None:
    fingerprint = "sha256:" + "ab" * 32
    before = datetime.now(UTC)
    store.publish(adapter, "a")
    store.publish(
        adapter, "a", base_fingerprint=fingerprint, metrics={"accuracy": 0.9}, parent="a@latest"
    )
    manifest = store.resolve("a").manifest
    assert (manifest.name, manifest.version, manifest.parent) == ("a", "v2", "a@v1")
    assert before <= manifest.created <= datetime.now(UTC)
    assert manifest.base_fingerprint == fingerprint
    assert manifest.metrics == {"accuracy": 0.9}
    assert manifest.num_parameters == 24


def test_versions_count_up_and_sort_by_number(store: AdapterStore, adapter: Path) -> None:
    for _ in range(11):
        store.publish(adapter, "b")
    store.publish(adapter, "a")
    expected = [f"b@v{number}" for number in range(1, 12)]
    assert [version.reference for version in store.list()] == ["a@v1", *expected]
    assert [version.reference for version in store.versions("b")] == expected
    assert store.names() == ["a", "b"]


def test_reference_is_a_name_version_or_alias(store: AdapterStore, adapter: Path) -> None:
    first = store.publish(adapter, "a", aliases=("latest", "prod"))
    second = store.publish(adapter, "a")
    assert store.resolve("a") == store.resolve("a@latest") == second
    assert store.resolve("a@prod") == store.resolve("a@v1") == first


def test_unknown_references_are_told_with_what_there_is(store: AdapterStore, adapter: Path) -> None:
    store.publish(adapter, "sst2-k15")
    with pytest.raises(AdapterNotFoundError, match=r"mean sst2-k15\? It holds: sst2-k15\."):
        store.resolve("sst2_k15")
    with pytest.raises(AdapterNotFoundError, match=r"no alias ltest\. Did you mean latest"):
        store.resolve("sst2-k15@ltest")
    with pytest.raises(AdapterNotFoundError, match=r"no version v2\. It has: v1"):
        store.resolve("sst2-k15@v2")


@pytest.mark.parametrize("reference", ["", "../a", "/etc/passwd", "a@../../b", "a/v1", ".", "a\0"])
def test_malformed_reference_is_not_found(
    store: AdapterStore, adapter: Path, reference: str
) -> None:
    store.publish(adapter, "a")
    with pytest.raises(AdapterNotFoundError):
        store.resolve(reference)


def test_bad_folder_publishes_nothing(store: AdapterStore, place: Place, tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "bad", {DELTA: np.full((1, 4), np.nan, np.float32)})
    with pytest.raises(AdapterCorruptError, match="NaN"):
        store.publish(folder, "a")
    with pytest.raises(ConfigError, match="cannot name an adapter"):
        store.publish(tmp_path / "bad", "../a")
    assert place.paths() == set()


def test_value_no_manifest_can_hold_publishes_nothing(
    store: AdapterStore, place: Place, adapter: Path
) -> None:
    with pytest.raises(ConfigError, match="base_fingerprint"):
        store.publish(adapter, "a", base_fingerprint="abc")
    assert place.paths() == set()


def test_pulled_version_is_a_folder_of_the_published_files(
    store: AdapterStore, adapter: Path
) -> None:
    store.publish(adapter, "a")
    version = store.pull("a")
    assert version == store.resolve("a@v1")
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        assert (version.path / file).read_bytes() == (adapter / file).read_bytes()
    assert store.verify(version) == store.verify("a") == version


def test_held_version_is_whole(store: AdapterStore, adapter: Path) -> None:
    published = store.publish(adapter, "a")
    with store.hold("a@latest") as by_reference, store.hold(published) as by_value:
        assert by_reference == by_value == published
        assert (by_value.path / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_damaged_file_is_refused_by_name(
    store: AdapterStore, place: Place, adapter: Path, file: str, damage: str
) -> None:
    (adapter / "README.md").write_text("# A")
    store.publish(adapter, "a")
    content = place.read(f"a/v1/{file}")
    if damage == "flip":
        place.write(f"a/v1/{file}", content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "truncate":
        place.write(f"a/v1/{file}", content[:-1])
    else:
        place.delete(f"a/v1/{file}")
    for call in (store.pull, store.verify):
        with pytest.raises(AdapterCorruptError, match=place.where(f"a/v1/{file}")):
            call("a")


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"name": "a"}'])
def test_malformed_manifest_is_refused(
    store: AdapterStore, place: Place, adapter: Path, text: bytes
) -> None:
    store.publish(adapter, "a")
    place.write("a/v1/manifest.json", text)
    for call in (store.resolve, store.pull, store.verify):
        with pytest.raises(AdapterCorruptError, match=r"manifest\.json: not a manifest"):
            call("a")
    assert [version.reference for version in store.list()] == ["a@v1"]


def test_version_copied_by_hand_is_refused(
    store: AdapterStore, place: Place, adapter: Path
) -> None:
    store.publish(adapter, "a")
    for file in ("adapter_config.json", "adapter_model.safetensors", "manifest.json"):
        place.write(f"b/v1/{file}", place.read(f"a/v1/{file}"))
    with pytest.raises(AdapterCorruptError, match="describes a@v1, but lies in b@v1"):
        store.verify("b@v1")


@pytest.mark.parametrize(
    "path", ["a b/v1/manifest.json", "a/v01/manifest.json", "a/x/manifest.json", "README.md"]
)
def test_odd_files_are_not_of_the_store(
    store: AdapterStore, place: Place, adapter: Path, path: str
) -> None:
    version = store.publish(adapter, "a")
    place.write(path, b"{}")
    assert store.list() == [version]
    assert store.names() == ["a"]
    assert store.publish(adapter, "a").reference == "a@v2"


def test_manifest_that_lists_a_path_is_refused(
    store: AdapterStore, place: Place, adapter: Path
) -> None:
    store.publish(adapter, "a")
    manifest: dict[str, Any] = json.loads(place.read("a/v1/manifest.json"))
    manifest["files"]["../../outside"] = {"sha256": "0" * 64, "bytes": 1}
    place.write("a/v1/manifest.json", json.dumps(manifest).encode())
    with pytest.raises(AdapterCorruptError, match="unknown file"):
        store.pull("a")


def test_earlier_versions_do_not_change(store: AdapterStore, place: Place, adapter: Path) -> None:
    store.publish(adapter, "a")
    content = {path: place.read(path) for path in place.paths("a/v1")}
    write_adapter(adapter, {"x.propulsion_delta": np.ones((1, 2), np.float32)})
    assert store.publish(adapter, "a").manifest.num_parameters == 2
    assert {path: place.read(path) for path in place.paths("a/v1")} == content
