"""From the section `task` to the task."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from trainer.config.task import TaskSection
from trainer.tasks.task import Task

_CLASSES = {
    "answer": "answer:Answering",
    "causal_lm": "causal_lm:LanguageModelling",
    "classification": "classification:Classification",
    "question_answering": "question_answering:QuestionAnswering",
    "regression": "regression:Regression",
    "summarization": "summarization:CausalSummarization",
    "summarization/seq2seq": "summarization:Seq2SeqSummarization",
    "token_classification": "token_classification:TokenClassification",
}


def make_task(
    settings: TaskSection, tokenizer: Any, max_length: int, labels: Sequence[str] = ()
) -> Task:
    """The task that a run file's section `task` describes.

    Args:
        tokenizer: of the base, with a padding and an end-of-sequence token.
        max_length: most tokens of a row (`data.max_length`).
        labels: names of the classes or tags, in the order of their indices.

    Raises:
        ConfigError: tokenizer, `max_length` or labels do not fit the task.
    """
    seq2seq = getattr(settings, "model", None) == "seq2seq"
    module, _, name = _CLASSES[settings.type + ("/seq2seq" if seq2seq else "")].partition(":")
    task: Task = getattr(import_module(f"trainer.tasks.{module}"), name)(
        settings, tokenizer, max_length, labels
    )
    return task
