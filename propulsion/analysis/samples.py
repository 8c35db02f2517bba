"""The samples that kernels are computed on: read from a file, drawn, and turned into tokens."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from propulsion.errors import ConfigError, DataError

TEXT = "text"
"""The field of JSON lines that is read if no other is named."""


@dataclass(frozen=True)
class Sample:
    """One sample."""

    line: int
    """Where it is in its file, counted from 1."""
    token_ids: tuple[int, ...]


def read_texts(path: Path, column: str | None = None) -> list[tuple[int, str]]:
    """The samples of a file, each with its line number; blank ones are left out.

    Args:
        path: tab-separated with a header if it ends in `.tsv`, without quoting, as GLUE publishes
            it; JSON lines if in `.jsonl` or `.json`; otherwise text, one sample a line.
        column: of a `.tsv`, which has no default, or the field of JSON lines, by default `text`.

    Raises:
        ConfigError: a column is missing for a `.tsv`, or given for text.
        DataError: the file is missing, empty or malformed; the message names file and line.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(_reader(path, column)(file))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}): check --data") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error}): convert it first") from error
    texts = [(line, text.strip()) for line, text in rows if text.strip()]
    if not texts:
        raise DataError(f"{path}: holds no sample: give a file with one sample a line")
    return texts


def draw_samples(
    texts: Sequence[tuple[int, str]],
    tokenize: Callable[[str], Sequence[int]],
    num_samples: int,
    *,
    min_tokens: int,
    seed: int,
    source: Path,
) -> list[Sample]:
    """Draw samples at random, without replacement, among those of at least `min_tokens` tokens.

    Args:
        texts: as `read_texts` gives them.
        tokenize: from a text to its token ids.
        source: the file, for the message.

    Returns:
        In the order of the file; the same ones for the same seed.

    Raises:
        DataError: there are fewer than `num_samples`.
    """
    samples: list[Sample] = []
    for line, text in random.Random(seed).sample(texts, len(texts)):
        token_ids = tuple(tokenize(text))
        if len(token_ids) >= min_tokens:
            samples.append(Sample(line, token_ids))
        if len(samples) == num_samples:
            return sorted(samples, key=lambda sample: sample.line)
    raise DataError(
        f"{source}: holds {len(samples)} samples of at least {min_tokens} tokens, "
        f"{num_samples} are asked for: lower --samples or give a longer file"
    )


Reader = Callable[[Iterator[str]], Iterator[tuple[int, str]]]


def _reader(path: Path, column: str | None) -> Reader:
    kind = path.suffix.lower()
    if kind == ".tsv":
        if column is None:
            raise ConfigError(f"{path}: name the column that holds the text with --column")
        return lambda lines: _tsv(path, lines, column)
    if kind in (".jsonl", ".json"):
        return lambda lines: _json_lines(path, lines, column or TEXT)
    if column is not None:
        raise ConfigError(
            f"{path}: --column {column} is for .tsv and .jsonl files, and this one is read as text "
            "with one sample a line: leave the option out or rename the file"
        )
    return lambda lines: enumerate(lines, start=1)


def _tsv(path: Path, lines: Iterator[str], column: str) -> Iterator[tuple[int, str]]:
    rows = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    header = next(rows, [])
    if column not in header:
        raise DataError(
            f"{path}:1: no column {column!r}; the header has {', '.join(map(repr, header))}"
        )
    index = header.index(column)
    for row in rows:
        if row and index >= len(row):
            raise DataError(
                f"{path}:{rows.line_num}: has {len(row)} columns, and {column!r} is column "
                f"{index + 1}: mend or remove the line"
            )
        yield rows.line_num, row[index] if row else ""


def _json_lines(path: Path, lines: Iterator[str], field: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise DataError(
                f"{path}:{number}: not valid JSON ({error}): each line must hold one object"
            ) from error
        if not isinstance(record, dict) or not isinstance(record.get(field), str):
            raise DataError(
                f"{path}:{number}: must be an object with text in {field!r}: name another field "
                "with --column, or mend the line"
            )
        yield number, record[field]
