"""Tables that stay on disk: memory-mapped by `datasets`, read row by row."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from propulsion.errors import DataError
from trainer.config.formats import DatasetFormat

if TYPE_CHECKING:
    from datasets import Dataset


def open_lines(path: Path) -> Dataset:
    """The lines of a UTF-8 text file, without their ends, in the column `text`.

    Row i is line i + 1. The table is a copy in the cache of `datasets`, made once for each
    state of the file.

    Raises:
        DataError: the file is missing, empty or not UTF-8.
    """
    _check_file(path)
    if path.stat().st_size == 0:
        raise DataError(f"{path}: holds no record")
    return _load(path, "text", data_files=_literally(path), encoding="utf-8-sig", split="train")


def open_parquet(path: Path) -> Dataset:
    """The rows of a Parquet file, of all in a folder, or of those that a pattern names.

    Raises:
        DataError: there is no such file, or it is not Parquet.
    """
    if path.is_dir():
        files = [_literally(file) for file in sorted(path.rglob("*.parquet"))]
    elif "*" in path.name and not path.exists():
        files = [_literally(file) for file in sorted(path.parent.glob(path.name))]
    else:
        _check_file(path)
        files = [_literally(path)]
    if not files:
        raise DataError(f"{path}: no such data file")
    return _load(path, "parquet", data_files=files, split="train")


def open_dataset(path: Path, records: DatasetFormat, split: str) -> Dataset:
    """A split of a data set: what `save_to_disk` wrote, a folder of data files, or a hub name.

    Raises:
        DataError: there is no such data set, configuration or split.
    """
    from datasets import DatasetDict, load_from_disk

    if any((path / name).is_file() for name in ("dataset_dict.json", "state.json")):
        with _named(path):
            saved = load_from_disk(str(path))
        if not isinstance(saved, DatasetDict):
            return saved
        if split not in saved:
            raise DataError(f"{path}: has no split {split!r}; it has {', '.join(saved)}")
        return saved[split]
    if not path.exists() and (path.is_absolute() or len(path.parts) > 2):
        raise DataError(f"{path}: no such data set folder")
    return _load(path, path.as_posix(), name=records.config, split=split)


def _load(path: Path, *args: Any, **options: Any) -> Dataset:
    from datasets import load_dataset

    with _named(path):
        return load_dataset(*args, **options)


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise DataError(f"{path}: a folder, not a data file")
    if not path.exists():
        raise DataError(f"{path}: no such data file")


def _literally(path: Path) -> str:
    # `datasets` takes a path for a pattern.
    return glob.escape(str(path.absolute()))


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Without progress bars; what goes wrong in `datasets` becomes an error about this path."""
    import pyarrow
    from datasets import exceptions
    from datasets.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    shown = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    except (OSError, ValueError, pyarrow.ArrowException, exceptions.DatasetsError) as error:
        cause = _root(error)
        if isinstance(cause, UnicodeDecodeError):
            raise DataError(f"{path}: not UTF-8 text ({cause})") from error
        raise DataError(f"{path}: cannot be read as a data set ({cause})") from error
    finally:
        if shown:
            enable_progress_bars()


def _root(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error
