"""Tiny bases and runs to compare methods on."""

from pathlib import Path
from typing import Any

from transformers import BertForSequenceClassification

from tests.trainer.runs import save_tiny_base, write_run
from tests.trainer.tasks.bases import bert_config, bert_tokenizer
from trainer.comparison.methods import METHODS
from trainer.comparison.plan import comparable_run
from trainer.config import RunConfig, load_run

BASES = ("llama", "bert")


def save_base(kind: str, folder: Path) -> Path:
    """A base of the kind, as a folder."""
    if kind == "llama":
        return save_tiny_base(folder)
    bert_tokenizer().save_pretrained(folder)
    BertForSequenceClassification(bert_config()).save_pretrained(folder)
    return folder


def write_run_on(kind: str, folder: Path, base: Path, **changes: Any) -> Path:
    """A run of `write_run` that fits the kind of base."""
    if kind == "bert":
        changes = {"task": {"type": "classification"}, "data__max_length": 48, **changes}
    return write_run(folder, base, **changes)


def method_run(method: str, kind: str, folder: Path, base: Path, **changes: Any) -> RunConfig:
    """What a comparison would have a method do."""
    run = load_run(write_run_on(kind, folder, base, **changes))
    return comparable_run(run, METHODS[method], 0.01, 0, folder / "out")
