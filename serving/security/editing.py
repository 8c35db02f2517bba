"""Adding keys to a keys file and taking them out."""

import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import yaml
from pydantic import ValidationError

from adapters.durable_files import locked, sync_folder
from propulsion.errors import ConfigError
from serving.security.key_text import digest_of, new_key
from serving.security.keys_file import KeyRecord, read_keys_file

_KEPT_MODE = stat.S_IRUSR | stat.S_IWUSR | stat.S_IRGRP


def add_key(path: Path, **fields: object) -> str:
    """Make a key, add its record to the file (made if missing, mode 0600), and return its text.

    Args:
        path: the keys file.
        fields: those of `KeyRecord` but `sha256`.

    Raises:
        ConfigError: a field is malformed, the id is taken, or the file cannot be used.
    """
    key = new_key()
    try:
        record = KeyRecord(sha256=digest_of(key.encode()).hex(), **fields)
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise ConfigError(f"key option {where}: {problem['msg']}") from None
    with _editing(path) as records:
        if any(other.id == record.id for other in records):
            raise ConfigError(f"keys file {path} has a key {record.id}: choose another --id")
        records.append(record)
    return key


def remove_key(path: Path, key_id: str) -> None:
    """Take a key's record out of the file.

    Raises:
        ConfigError: the file has no key of that id, or cannot be used.
    """
    with _editing(path) as records:
        kept = [record for record in records if record.id != key_id]
        if len(kept) == len(records):
            raise ConfigError(f"keys file {path} has no key {key_id!r}: see `propulsion keys list`")
        records[:] = kept


@contextmanager
def _editing(path: Path) -> Iterator[list[KeyRecord]]:
    """Lend the records for changing, and write them back when the block ends without an error.

    A missing file is an empty one. Editors take turns; a reader sees the old file or the new.
    """
    path = path.resolve()
    try:
        with locked(path.with_name(f".{path.name}.lock")):
            records = list(read_keys_file(path)[0]) if path.exists() else []
            yield records
            _write(path, records)
    except OSError as error:
        raise ConfigError(f"keys file {path} cannot be written: {error.strerror}") from error


def _write(path: Path, records: Sequence[KeyRecord]) -> None:
    rows = [record.model_dump(mode="json", exclude_none=True) for record in records]
    # Its mode is 0600 from the start.
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            yaml.safe_dump(rows, file, sort_keys=False)
            _keep_owner(path, file.fileno())
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(name)
        raise
    sync_folder(path.parent)


def _keep_owner(path: Path, descriptor: int) -> None:
    """Leave a rewritten file readable by the server, which may run as another user than we."""
    try:
        old = path.stat()
    except FileNotFoundError:
        return
    with suppress(PermissionError):
        os.fchown(descriptor, old.st_uid, old.st_gid)
        os.fchmod(descriptor, old.st_mode & _KEPT_MODE)
