"""A store in a bucket or any other file system of fsspec.

A version exists from the moment its manifest.json does, which is written last and only where there
is none. What is read is kept for some seconds, but nothing beyond an own change.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from adapters.backends.cache import VersionCache, default_cache
from adapters.backends.download import download
from adapters.backends.filesystem import S3_PROTOCOLS, open_filesystem, reaching
from adapters.backends.interface import Document, Leftover
from adapters.backends.location import protocol_of, without_credentials
from adapters.backends.recent_reads import RecentReads
from adapters.backends.remote_publishing import CLAIM_FILE, publish_remotely
from adapters.manifest import MANIFEST_FILE, Manifest, parse_manifest
from adapters.reference import is_name, is_version, version_number
from adapters.version import AdapterVersion
from propulsion.errors import AdapterNotFoundError, StoreUnavailableError

_NAMES = "names"


def open_remote(
    url: str, *, cache: str | Path | None, cache_bytes: int | None, alias_ttl_seconds: float
) -> "RemoteBackend":
    """The backend of a URL; arguments and errors are those of `adapters.AdapterStore`."""
    filesystem, root = open_filesystem(url)
    location = without_credentials(url).rstrip("/")
    return RemoteBackend(
        filesystem,
        root,
        location,
        VersionCache(default_cache(location) if cache is None else Path(cache), cache_bytes),
        RecentReads(alias_ttl_seconds),
        compares_tags=protocol_of(url) in S3_PROTOCOLS,
    )


class RemoteBackend:
    """Implements `Backend`, which says what the methods do.

    Args:
        filesystem: of fsspec.
        root: path of the store in it.
        location: URL without credentials.
        cache: where versions are copied to.
        recent: what was read a moment ago.
        compares_tags: whether a write can be bound to the ETag of what it replaces, as in S3;
            elsewhere the last of two writers at once wins.
    """

    def __init__(
        self,
        filesystem: Any,
        root: str,
        location: str,
        cache: VersionCache,
        recent: RecentReads,
        *,
        compares_tags: bool,
    ):
        self.location = location
        self.folder: Path | None = None
        self._filesystem = filesystem
        self._root = root
        self._cache = cache
        self._recent = recent
        self._compares_tags = compares_tags
        self._lock = threading.RLock()

    def where(self, *parts: str) -> str:
        return "/".join((self.location, *parts))

    def key(self, *parts: str) -> str:
        """The path of something in the file system."""
        return "/".join((self._root, *parts))

    def names(self) -> list[str]:
        return self._recent.get(_NAMES, self._list_names)

    def versions(self, name: str) -> list[str]:
        return _published(self.files(name)).get(name, [])

    def catalog(self) -> dict[str, list[str]]:
        return _published(self.files())

    def has_version(self, name: str, version: str) -> bool:
        try:
            self._manifest_text(name, version)
        except AdapterNotFoundError:
            return False
        return True

    def version(self, name: str, version: str) -> AdapterVersion:
        read = partial(self._manifest, name, version)
        return AdapterVersion(name, version, self._cache.path(name, version), read)

    def hold(self, version: AdapterVersion) -> AbstractContextManager[None]:
        return self._cache.hold(version, partial(download, self, version))

    def discard(self, version: AdapterVersion) -> bool:
        return self._cache.discard(version)

    @contextmanager
    def exclusive(self, name: str) -> Iterator[None]:
        # Other processes are met by conditional writes.
        with self._lock:
            yield

    def read_document(self, name: str, file: str, *, fresh: bool) -> Document:
        if not fresh:
            return self._recent.get((name, file), partial(self._read_document, name, file))
        try:
            tag = None
            if self._compares_tags:
                # Asked before the content is: if that changes in between, the write is refused.
                with reaching(self.location):
                    tag = self._filesystem.info(self.key(name, file))["ETag"]
        except FileNotFoundError:
            return Document(None)
        return replace(self._read_document(name, file), tag=tag)

    def replace_document(self, name: str, file: str, data: bytes, tag: str | None) -> bool:
        conditions = {}
        if self._compares_tags:
            conditions = {"mode": "create"} if tag is None else {"IfMatch": tag}
        try:
            self.write(self.key(name, file), data, **conditions)
        except FileExistsError:
            return False
        finally:
            self._recent.forget((name, file))
        return True

    def publish(
        self, source: Path, name: str, *, aliases: Sequence[str], details: Mapping[str, Any]
    ) -> str:
        try:
            return publish_remotely(self, source, name, aliases=aliases, details=details)
        finally:
            self._recent.forget(_NAMES)

    def remove(self, name: str, version: str) -> None:
        self.delete(self.key(name, version, MANIFEST_FILE))
        self._recent.forget((name, version), _NAMES)
        self.delete(*(self.key(*parts) for parts in self.files(name, version)))

    def leftovers(self, name: str, before: datetime) -> list[Leftover]:
        found: dict[str, dict[tuple[str, ...], int]] = {}
        files = self.files(name)
        published = set(_published(files).get(name, []))
        for parts, size in files.items():
            if len(parts) > 2 and is_version(parts[1]) and parts[1] not in published:
                found.setdefault(parts[1], {})[parts] = size
        return [
            Leftover(self.where(name, version), sum(parts.values()), f"{name}/{version}")
            for version, parts in found.items()
            if all(self._is_older(self.key(*key), before) for key in parts)
        ]

    def remove_leftover(self, leftover: Leftover) -> None:
        name, version = leftover.key.split("/")
        files = self.files(name, version)
        if (name, version, MANIFEST_FILE) in files:
            return
        # The claim first: without it its owner, should it wake up, writes no manifest.
        claim_first = sorted(files, key=lambda parts: parts[-1] != CLAIM_FILE)
        self.delete(*(self.key(*parts) for parts in claim_first))

    def files(self, *parts: str) -> dict[tuple[str, ...], int]:
        """The files below some part of the store with their sizes, by parts of their paths.

        Keys that do not start with a valid name, or have an odd part, are not of the store.
        """
        try:
            with reaching(self.location):
                found: Mapping[str, Any] = self._filesystem.find(self.key(*parts), detail=True)
        except FileNotFoundError:
            return {}
        start = f"{self._root}/"
        sizes = {
            tuple(key.removeprefix(start).split("/")): int(info.get("size") or 0)
            for key, info in found.items()
            if key.startswith(start)
        }
        return {
            path: size
            for path, size in sizes.items()
            if is_name(path[0]) and not any(part in ("", ".", "..") for part in path)
        }

    def read(self, key: str, start: int | None = None, end: int | None = None) -> bytes:
        """The content of a file, or a part; raises FileNotFoundError."""
        with reaching(self.location):
            data: bytes = self._filesystem.cat_file(key, start=start, end=end)
            return data

    def write(self, key: str, data: bytes, **conditions: Any) -> None:
        """Write a file in one step; raises FileExistsError if a condition is not met."""
        with reaching(self.location):
            self._filesystem.pipe_file(key, data, **conditions)

    def upload(self, path: Path, key: str) -> None:
        """Copy a local file into the store."""
        with reaching(self.location):
            self._filesystem.put_file(str(path), key)

    def delete(self, *keys: str) -> None:
        """Delete files in this order; those that are gone already count as deleted."""
        for key in keys:
            with suppress(FileNotFoundError), reaching(self.location):
                self._filesystem.rm_file(key)

    def _list_names(self) -> list[str]:
        try:
            with reaching(self.location):
                entries = self._filesystem.ls(self._root, detail=True)
        except FileNotFoundError:
            return []
        folders = (entry["name"] for entry in entries if entry["type"] == "directory")
        return sorted(filter(is_name, (path.rstrip("/").rpartition("/")[2] for path in folders)))

    def _manifest_text(self, name: str, version: str) -> bytes:
        key = self.key(name, version, MANIFEST_FILE)
        try:
            return self._recent.get((name, version), lambda: self.read(key))
        except FileNotFoundError as error:
            raise AdapterNotFoundError(
                f"{self.where(name, version)} is not in the store (any more): it has no "
                f"{MANIFEST_FILE}."
            ) from error

    def _manifest(self, name: str, version: str) -> Manifest:
        where = self.where(name, version, MANIFEST_FILE)
        return parse_manifest(self._manifest_text(name, version), where, name=name, version=version)

    def _read_document(self, name: str, file: str) -> Document:
        try:
            return Document(self.read(self.key(name, file)))
        except FileNotFoundError:
            return Document(None)

    def _is_older(self, key: str, before: datetime) -> bool:
        try:
            with reaching(self.location):
                modified: datetime = self._filesystem.modified(key)
        except (FileNotFoundError, StoreUnavailableError):
            # Some file systems do not tell; then it is not known to be abandoned.
            return False
        return (modified if modified.tzinfo else modified.replace(tzinfo=UTC)) < before


def _published(files: Mapping[tuple[str, ...], int]) -> dict[str, list[str]]:
    """The versions that have a manifest, by name and number."""
    found: dict[str, list[str]] = {}
    for parts in files:
        if len(parts) == 3 and parts[2] == MANIFEST_FILE and is_version(parts[1]):
            found.setdefault(parts[0], []).append(parts[1])
    return {name: sorted(versions, key=version_number) for name, versions in found.items()}
