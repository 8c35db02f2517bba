"""Result files that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from propulsion.errors import ConfigError


@contextmanager
def staged(folder: Path, outdated: Collection[str] = ()) -> Iterator[Path]:
    """A temporary folder, whose files move into `folder` when the block ends without an error.

    `folder` is made if it is missing; after an error in the block it is as it was before.

    Args:
        folder: where the files go, replacing those of the same names.
        outdated: names of results of an earlier run, which are removed if not written anew.

    Raises:
        ConfigError: `folder` cannot be made or written to, or a file cannot take its place there.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = tempfile.TemporaryDirectory(dir=folder, prefix=".propulsion-")
    except OSError as error:
        _remove_empty(missing)
        raise _cannot_write(folder, error) from error
    try:
        with temporary:
            yield Path(temporary.name)
            _move_files(Path(temporary.name), folder, outdated)
    except BaseException:
        _remove_empty(missing)
        raise


def _move_files(source: Path, folder: Path, outdated: Collection[str]) -> None:
    names = sorted(path.name for path in source.iterdir())
    # Checked for all of them first, so that none is replaced when another cannot be.
    for name in names:
        if (folder / name).is_dir():
            raise ConfigError(f"{folder / name} is a folder: choose another file to write to")
    try:
        for name in names:
            os.replace(source / name, folder / name)
        for name in {*outdated} - {*names}:
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise _cannot_write(folder, error) from error


def _cannot_write(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"{path}: cannot be written to ({error.strerror}): choose another place or free this one"
    )


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()
