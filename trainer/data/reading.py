"""Reads data sets into the records of a task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal

from propulsion.errors import ConfigError, DataError
from trainer.config.data import DataSection
from trainer.config.formats import (
    ColumnsFormat,
    ConllFormat,
    DatasetFormat,
    Gsm8kFormat,
    InstructionFormat,
    JsonlFormat,
    MawpsFormat,
    ParquetFormat,
    RecordFormat,
    SquadFormat,
    TsvFormat,
)
from trainer.data.columns import chosen_columns, declared_names, line_decoder, row_decoder
from trainer.data.conll import read_conll
from trainer.data.json_files import (
    gsm8k_decoder,
    read_instructions,
    read_mawps,
    read_squad,
)
from trainer.data.prompts import prompt_form
from trainer.data.published import layout
from trainer.data.records import Example, LabeledText, Question, Record, TaggedSentence
from trainer.data.rows import TableRecords
from trainer.data.tables import open_dataset, open_lines, open_parquet
from trainer.data.tsv import tsv_decoder

RECORD_TYPES: dict[str, type[Record]] = {
    "answer": Example,
    "causal_lm": Example,
    "summarization": Example,
    "classification": LabeledText,
    "regression": LabeledText,
    "question_answering": Question,
    "token_classification": TaggedSentence,
}
"""What a record is to each type of task."""

_GIVES: dict[str, tuple[type[Record], ...]] = {
    "instruction": (Example,),
    "gsm8k": (Example,),
    "mawps": (Example,),
    "squad": (Question,),
    "conll": (TaggedSentence,),
    "text": (Example, LabeledText),
    "prompt": (Example,),
    "messages": (Example,),
    "question": (Question,),
    "tokens": (TaggedSentence,),
}


def read_records(
    path: Path | str,
    data: DataSection,
    task_type: str,
    limit: int | None = None,
    *,
    split: Literal["train", "test"] | None = None,
) -> Sequence[Record]:
    """Read every record of a file or data set, or the first `limit`.

    JSON lines, Parquet, tables and Hugging Face data sets stay on disk: the records are read once
    to check them, and again, each by itself, when they are asked for.

    Args:
        path: `data.train`, `data.test`, or another that is written alike.
        data: how it is written.
        task_type: the key `type` of the section `task`, which decides what a record is.
        limit: most records.
        split: which of a data set's splits to take; by the path if not given.

    Raises:
        DataError: the data are missing, empty or not readable, or a record is malformed; the
            message names file and line.
        ConfigError: the data cannot be records of this task.
    """
    path = Path(path)
    records = layout(data.records, path, task_type)
    _check_fit(records, data, task_type)
    read: Sequence[Record]
    if isinstance(records, TsvFormat | Gsm8kFormat | ColumnsFormat):
        read = _from_table(path, data, records, task_type, limit, split)
    else:
        read = _in_memory(path, records, prompt_form(data), limit)
    if not read:
        raise DataError(f"{path}: holds no record")
    return read


def label_names(data: DataSection, records: Sequence[Record], task_type: str) -> tuple[str, ...]:
    """Names of the classes in the order of their indices, or of all tags, `O` first.

    Args:
        records: what `read_records` gave for training; tags that nothing declares are those in it.

    Returns:
        An empty tuple for a task that has neither.
    """
    declared = getattr(records, "labels", None)
    if declared is None:
        declared = _named_in_run_file(layout(data.records, data.train, task_type))
    if task_type == "classification":
        return declared
    if task_type != "token_classification":
        return ()
    tags = set(declared) or {
        tag for record in records if isinstance(record, TaggedSentence) for tag in record.tags
    }
    return tuple(sorted(tags, key=lambda tag: (tag != "O", tag)))


def _from_table(
    path: Path,
    data: DataSection,
    records: TsvFormat | Gsm8kFormat | ColumnsFormat,
    task_type: str,
    limit: int | None,
    split: Literal["train", "test"] | None,
) -> TableRecords:
    prompt = prompt_form(data)
    names: tuple[str, ...] = ()
    first = 0
    if isinstance(records, ParquetFormat | DatasetFormat):
        if isinstance(records, DatasetFormat):
            table = open_dataset(path, records, _split(path, data, records, split))
        else:
            table = open_parquet(path)
        table = chosen_columns(table, records, path)
        names = declared_names(table, records)
        decode = row_decoder(records, names, task_type, prompt)
    else:
        table = open_lines(path)
        names = _named_in_run_file(records)
        if isinstance(records, TsvFormat):
            first = int(records.header)
            decode = tsv_decoder(table, records, task_type, prompt, path)
        elif isinstance(records, JsonlFormat):
            decode = line_decoder(records, task_type, prompt)
        else:
            decode = gsm8k_decoder(prompt)
    if task_type == "classification" and not names:
        raise ConfigError(
            "data.records.labels: name the labels that the classes are, in their order, as in "
            '{"0": negative, "1": positive}'
        )
    is_text = not isinstance(records, ParquetFormat | DatasetFormat)
    rows = TableRecords(table, decode, path, text=is_text, labels=names)
    return rows.validated(first, limit)


def _named_in_run_file(records: RecordFormat) -> tuple[str, ...]:
    labels = records.labels if isinstance(records, TsvFormat | ColumnsFormat) else {}
    tags = records.tag_names if isinstance(records, ColumnsFormat) else ()
    return (*labels.values(), *tags)


def _in_memory(path: Path, records: RecordFormat, prompt: str, limit: int | None) -> list[Record]:
    try:
        return list(islice(_parsed(path, records, prompt), limit))
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such data file") from error
    except IsADirectoryError as error:
        raise DataError(f"{path}: a folder, not a data file") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error})") from error


def _parsed(path: Path, records: RecordFormat, prompt: str) -> Iterator[Record]:
    if isinstance(records, InstructionFormat):
        return read_instructions(path, prompt)
    if isinstance(records, MawpsFormat):
        return read_mawps(path, prompt)
    if isinstance(records, SquadFormat):
        return read_squad(path)
    assert isinstance(records, ConllFormat)
    return read_conll(path)


def _split(
    path: Path,
    data: DataSection,
    records: DatasetFormat,
    split: Literal["train", "test"] | None,
) -> str:
    if split is None and data.train == data.test:
        raise ValueError("the path does not tell the split: give `split`")
    trains = split == "train" or (split is None and path == data.train)
    return records.train_split if trains else records.test_split


def _check_fit(records: RecordFormat, data: DataSection, task_type: str) -> None:
    """Refuse data that are no records of the task, before anything is read."""
    if task_type not in RECORD_TYPES:
        raise ConfigError(
            f"task.type: no such type {task_type!r}; there are {', '.join(RECORD_TYPES)}"
        )
    kind, pair = records.format, None
    if isinstance(records, ColumnsFormat):
        kind, pair = records.kind, records.text_pair
    elif isinstance(records, TsvFormat):
        kind, pair = "text", records.text_pair
    wanted = RECORD_TYPES[task_type]
    if wanted not in _GIVES[kind]:
        fitting = [name for name, gives in _GIVES.items() if wanted in gives]
        raise ConfigError(
            f"data.records: {data.records.format!r} data ({kind}) cannot train a task of type "
            f"{task_type!r}, which takes {' or '.join(fitting)}"
        )
    if wanted is Example and "{text_pair}" in (data.prompt or "") and pair is None:
        raise ConfigError("data.prompt: holds {text_pair}, but data.records names no text_pair")
