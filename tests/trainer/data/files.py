"""Small data files, and the reading of them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainer.config import DataSection
from trainer.data.reading import read_records
from trainer.data.records import Record


def read(
    path: Path, records: dict[str, Any], task: str = "answer", limit: int | None = None, **data: Any
) -> list[Record]:
    """All records of a file, with `<{text}>` for a prompt if the test says nothing else."""
    return list(lazily(path, records, task, limit, **data))


def lazily(
    path: Path, records: dict[str, Any], task: str = "answer", limit: int | None = None, **data: Any
) -> Sequence[Record]:
    return read_records(path, section(path, records, **data), task, limit)


def section(path: Path, records: dict[str, Any], **data: Any) -> DataSection:
    settings = {"prompt": "<{text}>", **data}
    return DataSection(train=path, test=path.with_name("other"), records=records, **settings)


def write(folder: Path, content: str, name: str = "data") -> Path:
    path = folder / name
    path.write_text(content, encoding="utf-8")
    return path


def write_lines(folder: Path, rows: Sequence[Any], name: str = "data.jsonl") -> Path:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return write(folder, text, name)
