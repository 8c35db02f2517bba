"""A part of the training records that is held out, to choose learning rates by."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from propulsion.errors import ConfigError
from trainer.config import JobConfig
from trainer.config.formats import TsvFormat
from trainer.data.published import layout
from trainer.job_data import read_job

_LINES = ("tsv", "jsonl", "gsm8k")
_LISTS = ("instruction", "mawps")


@dataclass(frozen=True)
class Holdout:
    """How the training records were divided."""

    path: Path
    """Holds the last `num_records` of those that the run file asks for."""
    num_train: int
    """Records before them."""
    num_records: int


def hold_out(job: JobConfig, task_type: str, share: float, folder: Path) -> Holdout:
    """Write the end of a job's training records into a file of their own.

    Args:
        job: whose records.
        task_type: the key `type` of the section `task`.
        share: of the records to hold out, below 1.
        folder: where the file goes.

    Raises:
        ConfigError: the data are not of a format that can be cut, or too few.
        DataError: they cannot be read.
    """
    data = job.data
    records = layout(data.records, data.train, task_type)
    if records.format not in (*_LINES, *_LISTS):
        raise ConfigError(
            f"data.records: no part of {records.format!r} data can be held out to choose learning "
            f"rates by, but of {', '.join((*_LINES, *_LISTS))}: give them with --lr instead"
        )
    used = len(read_job(job, task_type).train)
    num_records = round(used * share)
    if not 0 < num_records < used:
        raise ConfigError(f"{data.train}: {used} records are too few to hold {share:.0%} of out")
    path = folder / f"held-out{data.train.suffix}"
    folder.mkdir(parents=True, exist_ok=True)
    header, items = _items(data.train, records)
    whole = len(read_job(_unlimited(job), task_type).train)
    if len(items) != whole:
        raise ConfigError(
            f"{data.train}: {len(items)} rows hold {whole} records: remove the others first"
        )
    kept = items[used - num_records : used]
    if records.format in _LISTS:
        path.write_text(json.dumps(kept, ensure_ascii=False), encoding="utf-8")
    else:
        path.write_text("".join([*header, *kept]), encoding="utf-8")
    return Holdout(path, used - num_records, num_records)


def _items(path: Path, records: object) -> tuple[list[str], list[str]]:
    """The lines before the records, and the records as they are written."""
    text = path.read_text(encoding="utf-8-sig")
    if getattr(records, "format", "") in _LISTS:
        return [], list(json.loads(text))
    # `splitlines` would also break at characters that stand within a record.
    lines = [f"{line}\n" for line in text.replace("\r\n", "\n").split("\n")]
    if lines[-1] == "\n":
        lines.pop()
    first = int(isinstance(records, TsvFormat) and records.header)
    return lines[:first], lines[first:]


def _unlimited(job: JobConfig) -> JobConfig:
    return job.model_copy(update={"data": job.data.model_copy(update={"train_limit": None})})
