"""Copying a version from a remote store, comparing every file with the manifest on the way."""

import hashlib
from pathlib import Path
from typing import Protocol

from adapters.manifest import MANIFEST_FILE, FileEntry
from adapters.version import AdapterVersion
from propulsion.errors import AdapterCorruptError

_CHUNK_BYTES = 1 << 24


class Files(Protocol):
    """What a download needs of a backend."""

    def where(self, *parts: str) -> str: ...
    def key(self, *parts: str) -> str: ...
    def files(self, *parts: str) -> dict[tuple[str, ...], int]: ...
    def read(self, key: str, start: int | None = None, end: int | None = None) -> bytes: ...


def download(backend: Files, version: AdapterVersion, folder: Path) -> None:
    """Fill an empty folder with the files of a version. No more is read than the manifest says.

    Raises:
        AdapterCorruptError: a file is missing, or its size or checksum is another; named.
        AdapterNotFoundError: the version is not in the store.
        StoreUnavailableError: the store cannot be reached now.
        OSError: the folder cannot be written.
    """
    manifest = version.manifest
    sizes = backend.files(version.name, version.version)
    for file, expected in manifest.files.items():
        found = sizes.get((version.name, version.version, file))
        if found != expected.bytes:
            size = "it is missing" if found is None else f"found {found}"
            raise _changed(
                backend, version, file, f"is not whole: expected {expected.bytes} bytes, {size}"
            )
        _copy(backend, version, file, expected, folder / file)
    (folder / MANIFEST_FILE).write_bytes(manifest.model_dump_json(indent=2).encode() + b"\n")


def _copy(
    backend: Files, version: AdapterVersion, file: str, expected: FileEntry, target: Path
) -> None:
    key, digest = backend.key(version.name, version.version, file), hashlib.sha256()
    with target.open("xb") as writer:
        for start in range(0, expected.bytes, _CHUNK_BYTES):
            end = min(start + _CHUNK_BYTES, expected.bytes)
            try:
                data = backend.read(key, start, end)
            except FileNotFoundError as error:
                raise _changed(backend, version, file, "has just been removed") from error
            digest.update(data)
            writer.write(data)
    if digest.hexdigest() != expected.sha256:
        why = f"has changed: expected sha256 {expected.sha256}, found {digest.hexdigest()}"
        raise _changed(backend, version, file, why)


def _changed(backend: Files, version: AdapterVersion, file: str, why: str) -> AdapterCorruptError:
    return AdapterCorruptError(
        f"{backend.where(version.name, version.version, file)} {why}. Publish the adapter again, "
        "or restore the file."
    )
