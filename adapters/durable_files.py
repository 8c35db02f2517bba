"""File operations that survive a crash: synced writes, hashed copies, folder syncs, locks."""

import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_CHUNK_BYTES = 1 << 20


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading, refusing symbolic links, folders, pipes and devices.

    Raises:
        OSError: it cannot be opened or is not a regular file.
    """
    # Without O_NONBLOCK a pipe planted in a store would block the reader for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return os.fdopen(descriptor, "rb")


def hash_stream(stream: BinaryIO) -> str:
    """The sha256, in hex, of what is left to read."""
    digest = hashlib.sha256()
    while chunk := stream.read(_CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


def write_file(path: Path, data: bytes) -> None:
    """Write a file and sync it, replacing what it held; raises OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o666), "wb") as target:
        target.write(data)
        target.flush()
        os.fsync(target.fileno())


def copy_file(source: Path, target: Path) -> tuple[str, int]:
    """Copy to a new, synced file; return what was written: sha256 in hex, and bytes."""
    digest, size = hashlib.sha256(), 0
    with source.open("rb") as reader, target.open("xb") as writer:
        while chunk := reader.read(_CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
            writer.write(chunk)
        writer.flush()
        os.fsync(writer.fileno())
    return digest.hexdigest(), size


def sync_folder(path: Path) -> None:
    """Make the folder's own entries (creations, renames) durable; raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def acquire_lock(path: Path, *, wait: bool) -> int:
    """Lock a file, made if missing, until the returned descriptor is closed or the process ends.

    Raises:
        BlockingIOError: it is held elsewhere and `wait` is false.
        OSError: it cannot be opened.
    """
    # Opened for writing, since NFS gives exclusive locks on nothing less.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock on a file against other threads and processes."""
    descriptor = acquire_lock(path, wait=True)
    try:
        yield
    finally:
        os.close(descriptor)
