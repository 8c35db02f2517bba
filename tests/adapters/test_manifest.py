import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from adapters import Manifest
from adapters.manifest import load_manifest
from propulsion.errors import AdapterCorruptError

FILE = {"sha256": "0" * 64, "bytes": 1}
FILES = {"adapter_config.json": FILE, "adapter_model.safetensors": FILE}
VALUES: dict[str, Any] = {
    "name": "a",
    "version": "v1",
    "created": "2025-06-01T12:00:00Z",
    "files": FILES,
    "peft_type": "PROPULSION",
    "num_parameters": 1,
}


def test_created_is_written_as_utc_iso_8601() -> None:
    manifest = Manifest(**{**VALUES, "created": datetime(2025, 6, 1, 12, tzinfo=UTC)})
    assert json.loads(manifest.model_dump_json())["created"] == "2025-06-01T12:00:00Z"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("unknown_key", 1),
        ("format_version", 2),
        ("created", "2025-06-01T12:00:00"),
        ("base_fingerprint", "md5:00"),
        ("num_parameters", -1),
        ("files", {}),
        ("files", {"adapter_config.json": FILE}),
        ("files", {**FILES, "../../etc/passwd": FILE}),
        ("files", {**FILES, "adapter_model.bin": FILE}),
        ("files", {**FILES, "README.md": {**FILE, "sha256": "0"}}),
        ("files", {**FILES, "README.md": {**FILE, "mode": 7}}),
    ],
)
def test_malformed_value_is_refused(key: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=key.replace("../", "")):
        Manifest(**{**VALUES, key: value})


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_file_is_read_back(tmp_path: Path) -> None:
    manifest = Manifest(**VALUES)
    path = written(tmp_path / "manifest.json", manifest.model_dump_json())
    assert load_manifest(path, name="a", version="v1") == manifest


def test_manifest_of_another_version_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "manifest.json", Manifest(**VALUES).model_dump_json())
    with pytest.raises(AdapterCorruptError, match="describes a@v1, but lies in a@v2"):
        load_manifest(path, name="a", version="v2")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, '{"name": "a"}'])
def test_malformed_file_is_named(tmp_path: Path, text: str) -> None:
    path = written(tmp_path / "manifest.json", text)
    with pytest.raises(AdapterCorruptError, match=f"{path}: not a manifest: "):
        load_manifest(path, name="a", version="v1")


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(AdapterCorruptError, match=r"manifest\.json: cannot be read: No such file"):
        load_manifest(tmp_path / "manifest.json", name="a", version="v1")
