"""Publishing in a folder: fill a hidden folder, then rename it into its version's place.

A reader sees a whole version or none. A publisher that dies leaves a hidden folder, which the next
one removes: a lock on a file inside tells whether its owner lives, on whatever host or container.
"""

import errno
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from adapters.backends.local_documents import prepared_document, read_document
from adapters.documents import (
    ALIASES_FILE,
    SPLITS_FILE,
    dump_document,
    moved,
    parse_aliases,
    parse_splits,
)
from adapters.durable_files import acquire_lock, locked, sync_folder, write_file
from adapters.manifest import MANIFEST_FILE
from adapters.reference import is_version, version_number
from adapters.staging import manifest_of, stage_files
from propulsion.errors import PropulsionError

LOCK_FILE = ".lock"

_STAGING_PREFIX = ".publish-"
_REMOVED_PREFIX = ".removed-"
_OWNER_FILE = ".owner"
_TAKEN = {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}


def publish_folder(
    source: Path, name_folder: Path, *, aliases: Sequence[str], details: Mapping[str, Any]
) -> str:
    """Publish an adapter folder under the existing folder `<store>/<name>`.

    Arguments, result and errors are those of `Backend.publish`.
    """
    with _staging_folder(name_folder) as staging:
        draft = stage_files(source, staging, details)
        with locked(name_folder / LOCK_FILE):
            return _commit(staging, name_folder, aliases, draft)


def abandoned_folders(name_folder: Path) -> list[Path]:
    """What publishers and removals that died left behind. Call under the adapter's lock.

    Then no owner is between making its folder and locking it.
    """
    with os.scandir(name_folder) as entries:
        folders = [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    return [
        folder
        for folder in folders
        if folder.name.startswith(_REMOVED_PREFIX)
        or (folder.name.startswith(_STAGING_PREFIX) and _is_ownerless(folder))
    ]


def remove_version(name_folder: Path, version: str) -> None:
    """Rename a version out of sight, then delete it; raises OSError if it cannot be renamed."""
    hidden = name_folder / f"{_REMOVED_PREFIX}{version}-{secrets.token_hex(8)}"
    os.rename(name_folder / version, hidden)
    sync_folder(name_folder)
    shutil.rmtree(hidden, ignore_errors=True)


def _is_ownerless(folder: Path) -> bool:
    try:
        owner = acquire_lock(folder / _OWNER_FILE, wait=False)
    except OSError:
        # Its owner lives, or is another user whose leftovers are not ours to remove.
        return False
    os.close(owner)
    return True


@contextmanager
def _staging_folder(name_folder: Path) -> Iterator[Path]:
    with locked(name_folder / LOCK_FILE):
        for folder in abandoned_folders(name_folder):
            shutil.rmtree(folder, ignore_errors=True)
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


def _commit(
    staging: Path, name_folder: Path, aliases: Sequence[str], draft: Mapping[str, Any]
) -> str:
    (staging / _OWNER_FILE).unlink()
    present = parse_aliases(
        read_document(name_folder / ALIASES_FILE), str(name_folder / ALIASES_FILE)
    )
    splits = parse_splits(read_document(name_folder / SPLITS_FILE), str(name_folder / SPLITS_FILE))
    in_use = {*present.values(), *(version for weights in splits.values() for version in weights)}
    kept = {alias: weights for alias, weights in splits.items() if alias not in aliases}
    while True:
        version = _next_version(name_folder, in_use)
        write_file(staging / MANIFEST_FILE, manifest_of(draft, version))
        sync_folder(staging)
        # Written before the rename, so that a full disk fails here and not after it.
        documents: dict[str, Mapping[str, Any]] = {
            ALIASES_FILE: moved(present, dict.fromkeys(aliases, version))
        }
        if kept != splits:
            documents[SPLITS_FILE] = kept
        with ExitStack() as prepared:
            commits = [
                prepared.enter_context(prepared_document(name_folder / file, dump_document(value)))
                for file, value in documents.items()
            ]
            if not _renamed(staging, name_folder / version):
                continue
            try:
                for commit in commits:
                    commit()
            except OSError as error:
                raise PropulsionError(
                    f"{name_folder.name}@{version} is published, but its aliases could not be "
                    f"moved: {error}. Set them with `propulsion adapters alias`."
                ) from error
        return version


def _next_version(name_folder: Path, in_use: set[str]) -> str:
    # What an alias points to counts even if deleted by hand: a version must not mean two things.
    taken = {*os.listdir(name_folder), *in_use}
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
