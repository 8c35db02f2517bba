"""Evaluates a saved adapter, or the bare base, on the test records of a run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from adapters import AdapterStore, AdapterVersion
from propulsion.errors import ConfigError
from trainer.config import JobConfig, RunConfig
from trainer.data.records import Record
from trainer.evaluation import evaluate
from trainer.identity import fingerprint_of
from trainer.job_data import JobData, read_job
from trainer.loading import load_base, load_tokenizer
from trainer.tasks.generation import GeneratingTask
from trainer.tasks.server import complete
from trainer.tasks.task import Scores


def evaluate_adapter(
    run: RunConfig, job: JobConfig, adapter: str | None, predictions: Path | None = None
) -> Scores:
    """Evaluate in this process.

    Args:
        run: gives the base, and how answers are read.
        job: gives the test records.
        adapter: a PEFT folder, a reference in the job's store, or None for the bare base.
        predictions: JSON lines of record and prediction are written here.

    Raises:
        AdapterNotFoundError, AdapterCorruptError, BaseMismatchError: the adapter cannot be used.
        ConfigError: the bare base has no trained head to evaluate.
    """
    version = None if adapter is None or Path(adapter).is_dir() else _verified(job, adapter)
    data = JobData(run, job, read_job(job, run.task.type), load_tokenizer(run.base))
    if adapter is None and data.task.has_head:
        raise ConfigError(
            f"a base has no head for {run.task.type} before one is trained: give --adapter"
        )
    deepspeed = run.deepspeed.model_copy(update={"stage": 0, "gradient_checkpointing": False})
    model = load_base(run.base, data.task.auto_model, deepspeed, data.task.model_options())
    if version is not None:
        version.require_base(fingerprint_of(run.base), run.base)
    if adapter is not None:
        from peft import PeftModel

        import propulsion  # noqa: F401  registers the method with PEFT

        model = PeftModel.from_pretrained(model, adapter if version is None else version.path)
    scores = evaluate(model, data.task, data.test, batch_size=run.evaluation.batch_size)
    if predictions is not None:
        _write(predictions, data.test, scores.predictions)
    return scores


def evaluate_server(
    run: RunConfig,
    job: JobConfig,
    url: str,
    model: str,
    *,
    api_key: str | None = None,
    predictions: Path | None = None,
) -> Scores:
    """Evaluate what a running OpenAI server answers to the test prompts.

    Args:
        run: says how answers are read; its task must be one of text.
        job: gives the test records.
        url: of the server, such as `http://127.0.0.1:8000`.
        model: name of an adapter or of the base, as the server knows it.
        api_key: of the server, if it wants one.
        predictions: JSON lines of record and prediction are written here.

    Raises:
        ConfigError: the task's answers are not text, or the server cannot be asked.
    """
    data = JobData(run, job, read_job(job, run.task.type), load_tokenizer(run.base))
    task = data.task
    if not isinstance(task, GeneratingTask):
        raise ConfigError(
            f"a server answers with text, and task {run.task.type} does not: omit --server"
        )
    answers = complete(url, model, task.prompts(data.test), task.max_new_tokens, api_key=api_key)
    scores = Scores(
        data.task.metric, data.task.score(answers, data.test), len(answers), tuple(answers)
    )
    if predictions is not None:
        _write(predictions, data.test, scores.predictions)
    return scores


def _write(path: Path, records: Sequence[Record], predictions: Sequence[Any]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for record, prediction in zip(records, predictions, strict=True):
            said = asdict(prediction) if is_dataclass(prediction) else prediction  # type: ignore[arg-type]
            file.write(
                json.dumps({**asdict(record), "prediction": said}, ensure_ascii=False) + "\n"
            )


def _verified(job: JobConfig, reference: str) -> AdapterVersion:
    if job.publish is None:
        raise ConfigError(
            f"{reference!r} is no folder, and the run file names no store (publish.store)"
        )
    return AdapterStore(job.publish.store).verify(reference)
