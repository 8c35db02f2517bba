"""Publishing where there are neither locks nor renames.

A publisher claims the next number by creating a small file, which only one can, uploads its files
below that number, and makes the version exist by creating its manifest. One that dies leaves a
number without a manifest, which is no version; garbage collection removes it.
"""

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from adapters.backends.interface import Backend
from adapters.documents import (
    ALIASES_FILE,
    SPLITS_FILE,
    moved,
    parse_aliases,
    parse_splits,
)
from adapters.editing import change_aliases, change_splits
from adapters.manifest import MANIFEST_FILE
from adapters.reference import is_version, version_number
from adapters.staging import manifest_of, stage_files
from propulsion.errors import AdapterCorruptError, PropulsionError, StoreUnavailableError

CLAIM_FILE = ".publish"


class FileBackend(Backend, Protocol):
    """A backend of single files."""

    def key(self, *parts: str) -> str: ...
    def files(self, *parts: str) -> dict[tuple[str, ...], int]: ...
    def read(self, key: str) -> bytes: ...
    def write(self, key: str, data: bytes, **conditions: Any) -> None: ...
    def upload(self, path: Path, key: str) -> None: ...
    def delete(self, *keys: str) -> None: ...


def publish_remotely(
    backend: FileBackend,
    source: Path,
    name: str,
    *,
    aliases: Sequence[str],
    details: Mapping[str, Any],
) -> str:
    """Publish an adapter folder; arguments, result and errors are those of `Backend.publish`."""
    with TemporaryDirectory(prefix="propulsion-publish-") as folder:
        staging = Path(folder)
        draft = stage_files(source, staging, details)
        # What no manifest can hold is refused before anything is written.
        manifest_of(draft, "v1")
        taken = _taken_numbers(backend, name)
        token = secrets.token_hex(16).encode()
        version = _claim(backend, name, max(taken, default=0) + 1, token)
        try:
            for file in draft["files"]:
                backend.upload(staging / file, backend.key(name, version, file))
        except BaseException:
            _withdraw(backend, name, version, token)
            raise
        _require_claim(backend, name, version, token)
        # After an error here the version may exist, so nothing is taken back.
        _create_manifest(backend, name, version, manifest_of(draft, version))
    try:
        backend.delete(backend.key(name, version, CLAIM_FILE))
        with backend.exclusive(name):
            change_aliases(backend, name, lambda a: moved(a, dict.fromkeys(aliases, version)))
            change_splits(
                backend, name, lambda splits: {a: s for a, s in splits.items() if a not in aliases}
            )
    except (AdapterCorruptError, StoreUnavailableError, OSError) as error:
        raise PropulsionError(
            f"{name}@{version} is published, but its aliases could not be moved: {error} Set them "
            "with `propulsion adapters alias`."
        ) from error
    return version


def _taken_numbers(backend: FileBackend, name: str) -> list[int]:
    aliases = backend.read_document(name, ALIASES_FILE, fresh=True).data
    splits = backend.read_document(name, SPLITS_FILE, fresh=True).data
    # What is named counts even if deleted by hand: a version must not mean two things.
    texts = {
        *(parts[1] for parts in backend.files(name) if len(parts) > 1),
        *parse_aliases(aliases, backend.where(name, ALIASES_FILE)).values(),
        *(v for w in parse_splits(splits, backend.where(name, SPLITS_FILE)).values() for v in w),
    }
    return [version_number(text) for text in texts if is_version(text)]


def _claim(backend: FileBackend, name: str, number: int, token: bytes) -> str:
    while True:
        version = f"v{number}"
        try:
            backend.write(backend.key(name, version, CLAIM_FILE), token, mode="create")
        except FileExistsError:
            number += 1
        else:
            return version


def _owns(backend: FileBackend, name: str, version: str, token: bytes) -> bool:
    try:
        return backend.read(backend.key(name, version, CLAIM_FILE)) == token
    except FileNotFoundError:
        return False


def _require_claim(backend: FileBackend, name: str, version: str, token: bytes) -> None:
    if not _owns(backend, name, version, token):
        raise PropulsionError(
            f"Nothing was published: {backend.where(name, version)} was claimed by another "
            "publisher, or collected as abandoned, meanwhile. Publish again; if it happens often, "
            "the store ignores conditional writes (If-None-Match)."
        )


def _create_manifest(backend: FileBackend, name: str, version: str, data: bytes) -> None:
    key = backend.key(name, version, MANIFEST_FILE)
    try:
        backend.write(key, data, mode="create")
    except FileExistsError:
        # A repeated request, whose first answer was lost, finds what it wrote.
        if backend.read(key) != data:
            raise


def _withdraw(backend: FileBackend, name: str, version: str, token: bytes) -> None:
    """Remove what was uploaded, if the store can be reached; if not, the collection does."""
    try:
        if _owns(backend, name, version, token):
            backend.delete(*(backend.key(*parts) for parts in backend.files(name, version)))
    except StoreUnavailableError:
        return
