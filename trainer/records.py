"""Reads the supported data files into prompts, targets and answers."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from propulsion.errors import DataError
from trainer.config import DataSection, Gsm8kFormat, InstructionFormat, RecordFormat, TsvFormat


@dataclass(frozen=True)
class Example:
    """One record: the model reads `prompt`, learns `target`, and is right if it says `answer`."""

    prompt: str
    target: str
    answer: str


def load_examples(path: Path, data: DataSection, limit: int | None = None) -> list[Example]:
    """Read every record of a file, or the first `limit`.

    Raises:
        DataError: the file is missing, empty or not readable, or a record is malformed; the
            message names file and line.
    """
    try:
        records = list(_read(path, data.records))
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such data file") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error})") from error
    if not records:
        raise DataError(f"{path}: holds no record")
    return [
        Example(data.prompt.replace("{text}", text), target, answer)
        for text, target, answer in records[:limit]
    ]


def _read(path: Path, records: RecordFormat) -> Iterator[tuple[str, str, str]]:
    if isinstance(records, InstructionFormat):
        return _read_instructions(path)
    if isinstance(records, Gsm8kFormat):
        return _read_gsm8k(path)
    return _read_tsv(path, records)


def _read_instructions(path: Path) -> Iterator[tuple[str, str, str]]:
    for line, record in _json_list(path):
        instruction, output, answer = (
            _text(path, line, record, key) for key in ("instruction", "output", "answer")
        )
        extra = record.get("input") or ""
        text = f"{instruction}\n{extra}" if extra else instruction
        yield text.strip(), output.strip(), answer.strip()


def _read_gsm8k(path: Path) -> Iterator[tuple[str, str, str]]:
    with path.open(encoding="utf-8") as file:
        for line, content in enumerate(file, start=1):
            if not content.strip():
                continue
            try:
                record = json.loads(content)
            except ValueError as error:
                raise DataError(f"{path}:{line}: not valid JSON ({error})") from error
            question = _text(path, line, record, "question")
            solution = _text(path, line, record, "answer")
            final = re.search(r"####\s*(\S.*?)\s*$", solution)
            if final is None:
                raise DataError(f"{path}:{line}: 'answer' does not end in '#### <number>'")
            yield question.strip(), solution.strip(), final.group(1)


def _read_tsv(path: Path, columns: TsvFormat) -> Iterator[tuple[str, str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        header = next(rows, []) if columns.header else []
        text_at = _column(path, header, columns.text)
        label_at = _column(path, header, columns.label)
        for row in rows:
            if not row:
                continue
            if max(text_at, label_at) >= len(row):
                raise DataError(
                    f"{path}:{rows.line_num}: has {len(row)} columns, "
                    f"column {max(text_at, label_at)} (counted from 0) is needed"
                )
            label = row[label_at].strip()
            if label not in columns.labels:
                raise DataError(
                    f"{path}:{rows.line_num}: label {label!r} is not one of "
                    f"{', '.join(map(repr, columns.labels))} (records.labels in the run file)"
                )
            name = columns.labels[label]
            yield row[text_at].strip(), name, name


def _column(path: Path, header: list[str], column: str | int) -> int:
    if isinstance(column, int):
        return column
    if column not in header:
        raise DataError(f"{path}:1: no column {column!r}; the header has {', '.join(header)}")
    return header.index(column)


def _json_list(path: Path) -> Iterator[tuple[int, Any]]:
    """The elements of a JSON list with the line each begins on."""
    content = path.read_text(encoding="utf-8")
    decoder = json.JSONDecoder()
    blank = re.compile(r"\s*")
    position = blank.match(content).end()  # type: ignore[union-attr]
    line = 1 + content.count("\n", 0, position)
    if content[position : position + 1] != "[":
        raise DataError(f"{path}:{line}: must hold a JSON list of records")
    separator = "["
    while separator != "]":
        start = blank.match(content, position + 1).end()  # type: ignore[union-attr]
        line += content.count("\n", position, start)
        if separator == "[" and content[start : start + 1] == "]":
            return
        try:
            record, end = decoder.raw_decode(content, start)
        except ValueError as error:
            raise DataError(f"{path}:{line}: not valid JSON ({error})") from error
        yield line, record
        position = blank.match(content, end).end()  # type: ignore[union-attr]
        line += content.count("\n", start, position)
        separator = content[position : position + 1]
        if separator not in (",", "]"):
            raise DataError(f"{path}:{line}: expected ',' or ']' after a record")


def _text(path: Path, line: int, record: Any, key: str) -> str:
    if not isinstance(record, dict):
        raise DataError(f"{path}:{line}: a record must be a JSON object")
    if key not in record:
        raise DataError(f"{path}:{line}: the record has no {key!r}")
    value = record[key]
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    if not isinstance(value, str):
        raise DataError(f"{path}:{line}: {key!r} must be text, found {type(value).__name__}")
    return value
