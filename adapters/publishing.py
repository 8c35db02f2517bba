"""Publishing: copy into a hidden folder, check the copy, then rename it into its version's place.

A reader sees a whole version or none. A publisher that dies leaves a hidden folder, which the next
one removes: a lock on a file inside tells whether its owner lives, on whatever host or container.
"""

import errno
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from adapters.aliases import prepared_aliases, read_aliases
from adapters.durable_files import acquire_lock, copy_file, locked, sync_folder, write_file
from adapters.manifest import KNOWN_FILES, MANIFEST_FILE, FileEntry, Manifest
from adapters.reference import is_version, version_number
from adapters.validate import validate_folder
from propulsion.errors import PropulsionError

LOCK_FILE = ".lock"

_STAGING_PREFIX = ".publish-"
_OWNER_FILE = ".owner"
_TAKEN = {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}


def publish_folder(
    source: Path, name_folder: Path, *, aliases: Sequence[str], details: Mapping[str, Any]
) -> str:
    """Publish an adapter folder as the next version under `name_folder`; return that version.

    Args:
        source: the adapter folder; only the files the format knows are copied.
        name_folder: the existing folder `<store>/<name>`.
        aliases: moved to the new version in the same locked step.
        details: manifest keys that do not follow from the files.

    Raises:
        AdapterCorruptError: the folder does not hold a valid adapter.
        pydantic.ValidationError: `details` do not fit the manifest.
        PropulsionError: the version is published but its aliases could not be moved.
        OSError: it could not be written; nothing is published.
    """
    with _staging_folder(name_folder) as staging:
        files = {}
        for file in KNOWN_FILES:
            if (source / file).is_file():
                sha256, size = copy_file(source / file, staging / file)
                files[file] = FileEntry(sha256=sha256, bytes=size)
        facts = validate_folder(staging)
        draft = {**details, **vars(facts), "files": files}
        with locked(name_folder / LOCK_FILE):
            return _commit(staging, name_folder, aliases, draft)


@contextmanager
def _staging_folder(name_folder: Path) -> Iterator[Path]:
    with locked(name_folder / LOCK_FILE):
        _remove_abandoned(name_folder)
        staging = name_folder / f"{_STAGING_PREFIX}{os.getpid()}-{secrets.token_hex(8)}"
        staging.mkdir()
        try:
            owner = acquire_lock(staging / _OWNER_FILE, wait=True)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        os.close(owner)


def _remove_abandoned(name_folder: Path) -> None:
    """Called under the adapter's lock, so no owner is between making its folder and locking it."""
    with os.scandir(name_folder) as entries:
        folders = [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
    for folder in folders:
        if not folder.name.startswith(_STAGING_PREFIX):
            continue
        try:
            owner = acquire_lock(Path(folder.path, _OWNER_FILE), wait=False)
        except OSError:
            # Its owner lives, or is another user whose leftovers are not ours to remove.
            continue
        shutil.rmtree(folder.path, ignore_errors=True)
        os.close(owner)


def _commit(
    staging: Path, name_folder: Path, aliases: Sequence[str], draft: Mapping[str, Any]
) -> str:
    (staging / _OWNER_FILE).unlink()
    present = read_aliases(name_folder)
    while True:
        version = _next_version(name_folder, present)
        manifest = Manifest(version=version, created=datetime.now(UTC), **draft)
        write_file(staging / MANIFEST_FILE, manifest.model_dump_json(indent=2).encode() + b"\n")
        sync_folder(staging)
        # Written before the rename, so that a full disk fails here and not after it.
        wanted = {**present, **dict.fromkeys(aliases, version)}
        with prepared_aliases(name_folder, wanted) as commit_aliases:
            if not _renamed(staging, name_folder / version):
                continue
            try:
                commit_aliases()
            except OSError as error:
                raise PropulsionError(
                    f"{name_folder.name}@{version} is published, but its aliases could not be "
                    f"moved: {error}. Set them with `propulsion adapters alias`."
                ) from error
        return version


def _next_version(name_folder: Path, aliases: Mapping[str, str]) -> str:
    # What an alias points to counts even if deleted by hand: a version must not mean two things.
    taken = {*os.listdir(name_folder), *aliases.values()}
    return f"v{max((version_number(entry) for entry in taken if is_version(entry)), default=0) + 1}"


def _renamed(staging: Path, target: Path) -> bool:
    """Whether the version was still free; Linux renames no folder onto one with content."""
    try:
        os.rename(staging, target)
    except OSError as error:
        # Taken by a publisher on another host, where the file system shares no locks.
        if error.errno in _TAKEN:
            return False
        raise
    return True
