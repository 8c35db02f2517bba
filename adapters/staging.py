"""The copy of an adapter folder that is checked and then published."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from adapters.durable_files import copy_file
from adapters.manifest import KNOWN_FILES, FileEntry, Manifest
from adapters.validate import validate_folder


def stage_files(source: Path, staging: Path, details: Mapping[str, Any]) -> dict[str, Any]:
    """Copy the files that the format knows, check the copy, and describe it.

    Args:
        source: an adapter folder.
        staging: an existing folder without these files.
        details: manifest keys that do not follow from the files.

    Returns:
        The manifest's keys but `version` and `created`.

    Raises:
        AdapterCorruptError: the copy is not a valid adapter.
        OSError: it cannot be read or written.
    """
    files = {}
    for file in KNOWN_FILES:
        if (source / file).is_file():
            sha256, size = copy_file(source / file, staging / file)
            files[file] = FileEntry(sha256=sha256, bytes=size)
    return {**details, **vars(validate_folder(staging)), "files": files}


def manifest_of(draft: Mapping[str, Any], version: str) -> bytes:
    """The text of the manifest of a version published now; raises pydantic.ValidationError."""
    manifest = Manifest(version=version, created=datetime.now(UTC), **draft)
    return manifest.model_dump_json(indent=2).encode() + b"\n"
