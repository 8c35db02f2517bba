"""The records of one adapter, and their rows of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from propulsion.errors import ConfigError
from trainer.config import JobConfig, RunConfig
from trainer.data.prompts import apply_chat_template
from trainer.data.reading import label_names, read_records
from trainer.data.records import Example, Record
from trainer.order import step_indices
from trainer.tasks.build import make_task
from trainer.tasks.task import EncodedRecord, Task

_MOST_CACHED_TOKENS = 50_000_000


@dataclass(frozen=True)
class JobRecords:
    """Training and test records of a job, and the names of its classes or tags."""

    train: Sequence[Record]
    test: Sequence[Record]
    labels: tuple[str, ...]


def read_job(job: JobConfig, task_type: str) -> JobRecords:
    """Read the files of a job; needs no model.

    Raises:
        DataError: a file is missing or malformed.
    """
    data = job.data
    train = read_records(data.train, data, task_type, data.train_limit, split="train")
    test = read_records(data.test, data, task_type, data.test_limit, split="test")
    return JobRecords(train, test, label_names(data, train, task_type))


class JobData:
    """Encodes a job's training records when they are needed.

    Attributes:
        task: what is learned from them.
        test: the test records.
    """

    def __init__(self, run: RunConfig, job: JobConfig, records: JobRecords, tokenizer: Any) -> None:
        self.task: Task = make_task(run.task, tokenizer, job.data.max_length, records.labels)
        self._template = job.data.chat_template
        self._tokenizer = tokenizer
        self.test = [self._templated(record) for record in records.test]
        self._train = records.train
        self._batch_size = job.training.batch_size
        self._seed = job.seed
        self._cache: dict[int, Sequence[EncodedRecord]] = {}
        self._cached_tokens = 0

    @cached_property
    def trivial_score(self) -> float | None:
        """Score of always giving the most frequent answer; None where that says nothing."""
        return self.task.trivial_score(self.test)

    def check(self, steps: int) -> None:
        """Encode every record that so many steps use, so that a bad one is found at once.

        Raises:
            DataError: a record cannot be used.
        """
        for index in range(min(len(self._train), steps * self._batch_size)):
            self._encode(index)

    def rows(self, step: int) -> list[EncodedRecord]:
        """All rows of the adapter's step with that index, over all ranks."""
        indices = step_indices(len(self._train), self._batch_size, step, self._seed)
        return [row for index in indices for row in self._encode(index)]

    def _encode(self, index: int) -> Sequence[EncodedRecord]:
        cached = self._cache.get(index)
        if cached is not None:
            return cached
        rows = self.task.encode(self._templated(self._train[index]))
        if self._cached_tokens < _MOST_CACHED_TOKENS:
            self._cache[index] = rows
            self._cached_tokens += sum(len(row) for row in rows)
        return rows

    def _templated(self, record: Record) -> Record:
        if self._template and isinstance(record, Example):
            return apply_chat_template(self._tokenizer, record)
        return record


def check_alike(run: RunConfig, records: Sequence[JobRecords]) -> None:
    """All adapters of a run share the shape of a head.

    Raises:
        ConfigError: they have different numbers of classes.
    """
    counts = {len(one.labels) for one in records}
    if len(counts) > 1:
        named = ", ".join(
            f"{job.name} {len(one.labels)}" for job, one in zip(run.jobs, records, strict=True)
        )
        raise ConfigError(
            f"the adapters of {run.name!r} have different numbers of labels ({named}), but the "
            "heads of one run are alike: put them into runs of their own"
        )
