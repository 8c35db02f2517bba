"""A store in a local folder. Symbolic links inside it are not followed: they are not in it."""

import os
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any

from adapters.backends.interface import Document, Leftover
from adapters.backends.local_documents import prepared_document, read_document
from adapters.backends.local_publishing import (
    LOCK_FILE,
    abandoned_folders,
    publish_folder,
    remove_version,
)
from adapters.durable_files import locked, sync_folder
from adapters.reference import is_name, is_version, version_number
from adapters.version import AdapterVersion
from propulsion.errors import ConfigError, StoreUnavailableError


class LocalBackend:
    """Implements `Backend`, which says what the methods do; made by the first publish."""

    def __init__(self, folder: Path):
        self.folder: Path | None = folder
        self.location = str(folder)
        self._root = folder
        self._was_there = folder.is_dir()

    def where(self, *parts: str) -> str:
        return str(self._root.joinpath(*parts))

    def names(self) -> list[str]:
        names = sorted(filter(is_name, _subfolders(self._root)))
        if not names:
            self._require_root()
        return names

    def versions(self, name: str) -> list[str]:
        if not _is_folder(self._root / name):
            self._require_root()
            return []
        return sorted(filter(is_version, _subfolders(self._root / name)), key=version_number)

    def catalog(self) -> dict[str, list[str]]:
        found = ((name, self.versions(name)) for name in self.names())
        return {name: versions for name, versions in found if versions}

    def has_version(self, name: str, version: str) -> bool:
        if _is_folder(self._root / name) and _is_folder(self._root / name / version):
            return True
        self._require_root()
        return False

    def version(self, name: str, version: str) -> AdapterVersion:
        return AdapterVersion(name, version, self._root / name / version)

    def hold(self, version: AdapterVersion) -> AbstractContextManager[None]:
        return nullcontext()

    def discard(self, version: AdapterVersion) -> bool:
        return False

    def exclusive(self, name: str) -> AbstractContextManager[None]:
        return locked(self._root / name / LOCK_FILE)

    def read_document(self, name: str, file: str, *, fresh: bool) -> Document:
        return Document(read_document(self._root / name / file))

    def replace_document(self, name: str, file: str, data: bytes, tag: str | None) -> bool:
        with prepared_document(self._root / name / file, data) as commit:
            commit()
        return True

    def publish(
        self, source: Path, name: str, *, aliases: Sequence[str], details: Mapping[str, Any]
    ) -> str:
        folder = self._root / name
        if folder.is_symlink():
            raise ConfigError(f"{folder} is a symbolic link; a store holds its adapters itself.")
        folder.mkdir(parents=True, exist_ok=True)
        sync_folder(self._root)
        self._was_there = True
        return publish_folder(source, folder, aliases=aliases, details=details)

    def remove(self, name: str, version: str) -> None:
        remove_version(self._root / name, version)

    def leftovers(self, name: str, before: datetime) -> list[Leftover]:
        with _reading():
            folders = abandoned_folders(self._root / name)
        return [Leftover(str(folder), _size(folder), str(folder)) for folder in folders]

    def remove_leftover(self, leftover: Leftover) -> None:
        shutil.rmtree(leftover.key)

    def _require_root(self) -> None:
        """A folder that nobody has made yet is an empty store; one that went away is not."""
        if _is_folder(self._root):
            self._was_there = True
        elif self._was_there:
            raise StoreUnavailableError(
                f"The adapter store {self._root} is away: check that its disk is mounted."
            )


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreUnavailableError(
            f"Cannot read the adapter store: {error}. Check the path, its permissions and that its "
            "disk is mounted."
        ) from error


def _is_folder(path: Path) -> bool:
    with _reading():
        try:
            return stat.S_ISDIR(path.lstat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False


def _subfolders(path: Path) -> list[str]:
    with _reading():
        try:
            with os.scandir(path) as entries:
                return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        except FileNotFoundError:
            return []


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())
