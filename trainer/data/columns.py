"""Rows whose columns are named in the run file: JSON lines, Parquet, data sets."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from propulsion.errors import DataError
from trainer.config.formats import ColumnsFormat
from trainer.data.fields import as_text, field, list_field, text_field
from trainer.data.labels import labeled_record
from trainer.data.prompts import fill
from trainer.data.records import AnswerSpan, Example, Question, Record, TaggedSentence
from trainer.data.rows import Decoder

if TYPE_CHECKING:
    from datasets import Dataset


def row_decoder(
    columns: ColumnsFormat, names: Sequence[str], task_type: str, prompt: str
) -> Decoder:
    """What makes a record of a row.

    Args:
        names: of the classes or tags, where the rows hold integers.
    """
    return partial(_decode, columns=columns, names=names, task_type=task_type, prompt=prompt)


def line_decoder(columns: ColumnsFormat, task_type: str, prompt: str) -> Decoder:
    """What makes a record of a line of JSON in the column `text`; nothing of a blank line."""
    return partial(_decode_line, decode=row_decoder(columns, columns.tag_names, task_type, prompt))


def chosen_columns(table: Dataset, columns: ColumnsFormat, path: Path) -> Dataset:
    """The table with nothing but the columns that make a record.

    Raises:
        DataError: the table lacks one of them.
    """
    chosen = list(dict.fromkeys(columns.columns.values()))
    for column in chosen:
        if column not in table.column_names:
            raise DataError(
                f"{path}: no column {column!r}; the columns are {', '.join(table.column_names)}"
            )
    return table.select_columns(chosen)


def declared_names(table: Dataset, columns: ColumnsFormat) -> tuple[str, ...]:
    """Names of the classes or tags, by the run file, else by the table's own features."""
    if columns.kind not in ("text", "tokens"):
        return ()
    given = columns.labels.values() if columns.kind == "text" else columns.tag_names
    feature = table.features[columns.columns["label" if columns.kind == "text" else "tags"]]
    return tuple(given or getattr(getattr(feature, "feature", feature), "names", None) or ())


def parsed_line(line: Mapping[str, str], where: str) -> Any:
    """The JSON of a line, None if it is blank.

    Raises:
        DataError: it is not JSON.
    """
    if not line["text"].strip():
        return None
    try:
        return json.loads(line["text"])
    except ValueError as error:
        raise DataError(f"{where}: not valid JSON ({error})") from error


def _decode_line(line: dict[str, str], where: str, *, decode: Decoder) -> Record | None:
    row = parsed_line(line, where)
    return None if row is None else decode(row, where)


def _decode(
    row: Any,
    where: str,
    *,
    columns: ColumnsFormat,
    names: Sequence[str],
    task_type: str,
    prompt: str,
) -> Record:
    chosen = columns.columns
    if columns.kind == "text":
        return _labeled(row, where, columns, names, task_type, prompt)
    if columns.kind == "prompt":
        text, target = (text_field(row, chosen[key], where) for key in ("prompt", "target"))
        answer = text_field(row, chosen["answer"], where) if "answer" in chosen else target
        return Example(fill(prompt, text.strip()), target.strip(), answer.strip())
    if columns.kind == "messages":
        return _chat(row, where, chosen["messages"], prompt)
    if columns.kind == "tokens":
        return _tagged(row, where, chosen, names)
    return _question(row, where, chosen)


def _labeled(
    row: Any,
    where: str,
    columns: ColumnsFormat,
    names: Sequence[str],
    task_type: str,
    prompt: str,
) -> Record:
    chosen = columns.columns
    text = text_field(row, chosen["text"], where).strip()
    pair = text_field(row, chosen["text_pair"], where).strip() if "text_pair" in chosen else None
    label = field(row, chosen["label"], where)
    # Data frames turn integers into floats where a value is missing.
    if isinstance(label, float) and label.is_integer() and task_type != "regression":
        label = int(label)
    labels = columns.labels or {str(index): name for index, name in enumerate(names)}
    value = as_text(label, chosen["label"], where).strip()
    return labeled_record(text, pair, value, labels, task_type, prompt, where)


def _chat(row: Any, where: str, column: str, prompt: str) -> Example:
    turns = _objects(field(row, column, where), column, ("role", "content"), where)
    messages = [
        tuple(as_text(value, f"{column}.{key}", where).strip() for key, value in turn.items())
        for turn in turns
    ]
    last = max((i for i, (role, _) in enumerate(messages) if role == "assistant"), default=0)
    if last == 0:
        raise DataError(f"{where}: {column!r} has no reply of the assistant to another's message")
    before, target = messages[:last], messages[last][1]
    text = before[0][1] if last == 1 else "\n".join(f"{r.capitalize()}: {c}" for r, c in before)
    return Example(fill(prompt, text), target, target, tuple((r, c) for r, c in before))


def _tagged(
    row: Any, where: str, chosen: Mapping[str, str], names: Sequence[str]
) -> TaggedSentence:
    tokens = [as_text(t, chosen["tokens"], where) for t in list_field(row, chosen["tokens"], where)]
    tags = list_field(row, chosen["tags"], where)
    if len(tokens) != len(tags):
        raise DataError(f"{where}: {len(tokens)} tokens, but {len(tags)} tags")
    return TaggedSentence(tuple(tokens), tuple(_tag_name(tag, names, where) for tag in tags))


def _tag_name(tag: Any, names: Sequence[str], where: str) -> str:
    if isinstance(tag, str):
        return tag
    if not isinstance(tag, int) or not 0 <= tag < len(names):
        raise DataError(
            f"{where}: tag {tag!r} has no name; name the tags in records.tag_names of the run "
            f"file, which has {len(names)}"
        )
    return names[tag]


def _question(row: Any, where: str, chosen: Mapping[str, str]) -> Question:
    context = text_field(row, chosen["context"], where)
    spans = _objects(
        field(row, chosen["answers"], where), chosen["answers"], ("text", "answer_start"), where
    )
    return Question(
        text_field(row, chosen["id"], where) if "id" in chosen else where,
        text_field(row, chosen["question"], where).strip(),
        context,
        tuple(answer_span(context, span["text"], span["answer_start"], where) for span in spans),
    )


def answer_span(context: str, text: Any, start: Any, where: str) -> AnswerSpan:
    """An answer, checked against the context that holds it.

    Raises:
        DataError: the context does not hold it there.
    """
    if not isinstance(text, str) or not isinstance(start, int) or start < 0:
        raise DataError(f"{where}: an answer needs a text and the character where it starts")
    if not context.startswith(text, start):
        raise DataError(
            f"{where}: the answer {text[:60]!r} does not stand at character {start} of the "
            f"context; there is {context[start : start + len(text)][:60]!r}"
        )
    return AnswerSpan(text, start)


def _objects(value: Any, column: str, keys: tuple[str, ...], where: str) -> list[dict[str, Any]]:
    """A list of objects, or an object of lists, as either is written for the same thing."""
    if isinstance(value, Mapping):
        lists = [list_field(value, key, where) for key in keys]
        if len({*map(len, lists)}) > 1:
            raise DataError(f"{where}: the lists in {column!r} differ in length")
        return [dict(zip(keys, items, strict=True)) for items in zip(*lists, strict=True)]
    if not isinstance(value, list):
        raise DataError(f"{where}: {column!r} must be a list, found {type(value).__name__}")
    return [{key: field(item, key, where) for key in keys} for item in value]
