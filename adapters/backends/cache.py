"""Copies of a remote store's versions on this machine, `<cache>/<name>/<version>/`.

A lock on a version's folder keeps it: shared by all who hold it, in any thread or process, and
exclusive for who removes it. Files are not synced to disk, since they are verified when they are
used and can be fetched again.
"""

import errno
import fcntl
import hashlib
import os
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from adapters.manifest import MANIFEST_FILE, load_manifest
from adapters.version import AdapterVersion
from propulsion.errors import AdapterCorruptError, ConfigError, PropulsionError

_HIDDEN_PREFIX = ".pull-"
_EXISTS = {errno.EEXIST, errno.ENOTEMPTY}
# What one process may add between two looks at the whole cache, as part of the limit.
_HEADROOM = 0.1
_TRIES = 5


@dataclass(frozen=True)
class _Entry:
    used: float
    num_bytes: int
    path: Path


class VersionCache:
    """Keeps versions up to a size; the least recently used leave, but none that is held.

    Args:
        folder: made when the first version comes.
        max_bytes: the size; None does not limit it. A version larger than this is kept alone.
            Processes with one cache may exceed it by a tenth each, for a while.

    Raises:
        ConfigError: `max_bytes` is not positive.
    """

    def __init__(self, folder: Path, max_bytes: int | None):
        if max_bytes is not None and max_bytes <= 0:
            raise ConfigError(f"cache_bytes is {max_bytes}: give a positive number, or none.")
        self._folder = folder
        self._max_bytes = max_bytes
        self._allowance = 0.0
        self._lock = threading.Lock()

    def path(self, name: str, version: str) -> Path:
        """Where a version lies, or would lie."""
        return self._folder / name / version

    @contextmanager
    def hold(self, version: AdapterVersion, fetch: Callable[[Path], None]) -> Iterator[None]:
        """Have a version in the cache and keep it there.

        Args:
            version: the version; its manifest tells whether the copy is of the same content.
            fetch: fills an empty folder with it.

        Raises:
            PropulsionError: the cache cannot be written; beside what `fetch` raises.
        """
        num_bytes = version.manifest.num_bytes
        descriptor = self._held(version)
        try:
            # Again if others evicted it at once.
            for _ in range(_TRIES):
                if descriptor is None:
                    self._make_room(num_bytes)
                    self._add(version, fetch)
                    descriptor = self._held(version)
        except OSError as error:
            raise self._unusable(version, str(error)) from error
        if descriptor is None:
            raise self._unusable(version, "the copy does not stay")
        try:
            yield
        finally:
            os.close(descriptor)

    def discard(self, version: AdapterVersion) -> bool:
        """Drop a copy even if it is held; True if a new one may be better."""
        _remove(self._folder, self.path(version.name, version.version))
        return True

    def _held(self, version: AdapterVersion) -> int | None:
        """A descriptor that keeps the copy while it is open; None without a copy of it."""
        path = self.path(version.name, version.version)
        descriptor = _locked_folder(path, fcntl.LOCK_SH)
        if descriptor is None:
            return None
        if _is_copy(path, version):
            os.utime(descriptor)
            return descriptor
        os.close(descriptor)
        self.discard(version)
        return None

    def _add(self, version: AdapterVersion, fetch: Callable[[Path], None]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        staging, owner = self._staging_folder()
        try:
            fetch(staging)
            target = self.path(version.name, version.version)
            target.parent.mkdir(exist_ok=True)
            try:
                os.rename(staging, target)
            except OSError as error:
                # Another process was faster; its copy is as good.
                if error.errno not in _EXISTS:
                    raise
        finally:
            shutil.rmtree(staging, ignore_errors=True)
            os.close(owner)

    def _staging_folder(self) -> tuple[Path, int]:
        while True:
            staging = self._folder / f"{_HIDDEN_PREFIX}{os.getpid()}-{secrets.token_hex(8)}"
            staging.mkdir()
            owner = _locked_folder(staging, fcntl.LOCK_SH)
            # None if it was taken for abandoned before it was locked.
            if owner is not None:
                return staging, owner

    def _make_room(self, num_bytes: int) -> None:
        if self._max_bytes is None:
            return
        with self._lock:
            self._allowance -= num_bytes
            if self._allowance >= 0:
                return
            self._remove_abandoned()
            entries = sorted(self._entries(), key=lambda entry: entry.used)
            total = sum(entry.num_bytes for entry in entries)
            headroom = self._max_bytes * _HEADROOM
            for entry in entries:
                if total + num_bytes + headroom <= self._max_bytes:
                    break
                if _remove_unheld(self._folder, entry.path):
                    total -= entry.num_bytes
            self._allowance = max(0.0, min(headroom, self._max_bytes - total - num_bytes))

    def _unusable(self, version: AdapterVersion, why: str) -> PropulsionError:
        return PropulsionError(
            f"Cannot copy {version.reference} to the cache {self._folder}: {why}. Check that it is "
            "writable and its disk has room."
        )

    def _entries(self) -> Iterator[_Entry]:
        for path in self._folder.glob("[!.]*/v*"):
            try:
                files = [file.stat().st_size for file in os.scandir(path)]
                yield _Entry(path.stat().st_mtime, sum(files), path)
            except OSError:
                # Evicted by another process just now.
                continue

    def _remove_abandoned(self) -> None:
        for path in self._folder.glob(f"{_HIDDEN_PREFIX}*"):
            descriptor = _locked_folder(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if descriptor is not None:
                shutil.rmtree(path, ignore_errors=True)
                os.close(descriptor)


def default_cache(location: str) -> Path:
    """The cache of a store that is given none: by its URL, below the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    key = hashlib.sha256(location.encode()).hexdigest()[:16]
    return Path(base, "propulsion", "store", key)


def _is_copy(path: Path, version: AdapterVersion) -> bool:
    """Whether a folder holds this version, as far as its manifest and the files' sizes tell."""
    try:
        if load_manifest(path / MANIFEST_FILE, name=version.name, version=version.version) != (
            version.manifest
        ):
            return False
        return all(
            (path / file).lstat().st_size == expected.bytes
            for file, expected in version.manifest.files.items()
        )
    except (AdapterCorruptError, OSError):
        return False


def _locked_folder(path: Path, operation: int) -> int | None:
    """A descriptor of a folder with a lock; None if the folder is gone or the lock is not free."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, operation)
        if os.path.samestat(os.fstat(descriptor), path.lstat()):
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None


def _remove_unheld(cache: Path, path: Path) -> bool:
    descriptor = _locked_folder(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    if descriptor is None:
        return False
    try:
        _remove(cache, path)
    finally:
        os.close(descriptor)
    return True


def _remove(cache: Path, path: Path) -> None:
    # Renamed first, so that nobody finds a half of it.
    hidden = cache / f"{_HIDDEN_PREFIX}old-{secrets.token_hex(8)}"
    try:
        os.rename(path, hidden)
    except OSError:
        return
    shutil.rmtree(hidden, ignore_errors=True)
