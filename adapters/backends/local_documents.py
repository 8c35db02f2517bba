"""Aliases and splits as files that are read whole and replaced in one rename."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from adapters.durable_files import open_regular, sync_folder, write_file
from propulsion.errors import AdapterCorruptError


def read_document(path: Path) -> bytes | None:
    """The content of a file; None if there is none.

    Raises:
        AdapterCorruptError: it cannot be read, or is no regular file.
    """
    try:
        with open_regular(path) as file:
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise AdapterCorruptError(f"{path}: cannot be read: {error.strerror}.") from error


@contextmanager
def prepared_document(path: Path, data: bytes) -> Iterator[Callable[[], None]]:
    """Write the next content beside the present one; calling what is yielded puts it in force.

    Every reader sees the old or the new one, whole. Not called, it is dropped. The caller holds the
    adapter's lock. Raises OSError where the folder cannot be written.
    """
    prepared = path.with_name(f".{path.name}.new")

    def commit() -> None:
        os.replace(prepared, path)
        sync_folder(path.parent)

    try:
        write_file(prepared, data)
        yield commit
    finally:
        prepared.unlink(missing_ok=True)
