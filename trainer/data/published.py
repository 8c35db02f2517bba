"""The data sets that are known by name: layout, prompt, label words and the paper's degree."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.config.formats import (
    ColumnsFormat,
    ConllFormat,
    Gsm8kFormat,
    InstructionFormat,
    JsonlFormat,
    ParquetFormat,
    PublishedFormat,
    RecordFormat,
    SquadFormat,
    TsvFormat,
)

PLAIN = "{text}\n"
"""The form of a prompt where nothing else is known."""

ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes "
    "the request.\n\n### Instruction:\n{text}\n\n### Response:\n"
)
"""The form of LLM-Adapters, which the paper's baselines are trained with."""

_SUMMARY = "Article:\n{text}\n\nSummary:\n"

DEFAULT_DEGREE = 15


@dataclass(frozen=True)
class PublishedSet:
    """What is known of a published data set."""

    layout: RecordFormat
    """How its files are written, with the names of its classes."""
    degree: int = DEFAULT_DEGREE
    """The power k that the paper trains it with."""
    prompt: str = PLAIN
    words: dict[str, str] = field(default_factory=dict)
    """Label → what the model says for it, where classes have names that are no plain words."""


def _glue(
    degree: int, prompt: str, *, words: str = "", label: str | int = "label", **columns: Any
) -> PublishedSet:
    layout = TsvFormat(format="tsv", label=label, **columns)
    said = dict(zip(layout.labels, words.split(), strict=True)) if words else {}
    return PublishedSet(layout, degree, prompt, said)


def _summaries(degree: int, text: str, summary: str) -> PublishedSet:
    return PublishedSet(JsonlFormat(format="jsonl", prompt=text, target=summary), degree, _SUMMARY)


_ENTAILMENT = {"entailment": "entailment", "not_entailment": "not_entailment"}

_REASONING = (
    "boolq",
    "piqa",
    "siqa",
    "hellaswag",
    "winogrande",
    "arc_easy",
    "arc_challenge",
    "obqa",
    "multiarith",
    "gsm8k",
    "addsub",
    "singleeq",
    "svamp",
)

PUBLISHED: dict[str, PublishedSet] = {
    # Columns by name, for they stand elsewhere in each file: MNLI's label is the 12th column of
    # the training file and the 16th of dev_matched. CoLA alone has no header.
    "cola": _glue(
        20,
        "{text}\nIs this sentence acceptable?\n",
        words="no yes",
        header=False,
        text=3,
        label=1,
        labels={"0": "unacceptable", "1": "acceptable"},
    ),
    "sst2": _glue(
        15,
        "{text}\nIs this negative or positive?\n",
        text="sentence",
        labels={"0": "negative", "1": "positive"},
    ),
    "mrpc": _glue(
        55,
        "Sentence 1: {text}\nSentence 2: {text_pair}\nDo they mean the same?\n",
        words="no yes",
        text="#1 String",
        text_pair="#2 String",
        label="Quality",
        labels={"0": "not_equivalent", "1": "equivalent"},
    ),
    "stsb": _glue(
        20,
        "Sentence 1: {text}\nSentence 2: {text_pair}\nHow similar are they, from 0 to 5?\n",
        text="sentence1",
        text_pair="sentence2",
        label="score",
    ),
    "qqp": _glue(
        15,
        "Question 1: {text}\nQuestion 2: {text_pair}\nDo they ask the same?\n",
        words="no yes",
        text="question1",
        text_pair="question2",
        label="is_duplicate",
        labels={"0": "not_duplicate", "1": "duplicate"},
        # The published files hold a few rows that are cut off.
        skip_short_rows=True,
    ),
    "mnli": _glue(
        20,
        "Premise: {text}\nHypothesis: {text_pair}\nDoes the hypothesis follow: yes, maybe or no?\n",
        words="yes maybe no",
        text="sentence1",
        text_pair="sentence2",
        label="gold_label",
        labels={name: name for name in ("entailment", "neutral", "contradiction")},
    ),
    "qnli": _glue(
        55,
        "Question: {text}\nSentence: {text_pair}\nDoes the sentence answer the question?\n",
        words="yes no",
        text="question",
        text_pair="sentence",
        labels=_ENTAILMENT,
    ),
    "rte": _glue(
        15,
        "Premise: {text}\nHypothesis: {text_pair}\nDoes the hypothesis follow?\n",
        words="yes no",
        text="sentence1",
        text_pair="sentence2",
        labels=_ENTAILMENT,
    ),
    "squad": PublishedSet(SquadFormat(format="squad"), 35),
    "squad_v2": PublishedSet(SquadFormat(format="squad"), 35),
    "xsum": _summaries(35, "document", "summary"),
    "cnn_dailymail": _summaries(25, "article", "highlights"),
    "conll2003": PublishedSet(ConllFormat(format="conll")),
    **{
        name: PublishedSet(InstructionFormat(format="instruction"), prompt=ALPACA)
        for name in _REASONING
    },
}


def default_degree(records: RecordFormat) -> int:
    """The power k that the paper uses for a data set; 15 where it has none."""
    if isinstance(records, PublishedFormat):
        return PUBLISHED[records.name].degree
    return PUBLISHED["squad"].degree if isinstance(records, SquadFormat) else DEFAULT_DEGREE


def layout(records: RecordFormat, path: Path, task_type: str) -> RecordFormat:
    """How a file is written, and what its labels are called in a task of this type.

    A set that is published in two layouts shows by the file's ending which one it is.
    """
    if not isinstance(records, PublishedFormat):
        return records
    known = PUBLISHED[records.name]
    if isinstance(known.layout, ColumnsFormat) and (path.suffix == ".parquet" or path.is_dir()):
        return ParquetFormat(**{**known.layout.model_dump(), "format": "parquet"})
    if records.name == "gsm8k" and path.suffix == ".jsonl":
        return Gsm8kFormat(format="gsm8k")
    if known.words and task_type != "classification":
        return known.layout.model_copy(update={"labels": known.words})
    return known.layout
