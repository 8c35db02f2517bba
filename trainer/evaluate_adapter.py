"""Evaluates a saved adapter, or the bare base, on a run's test records."""

from __future__ import annotations

import json
from pathlib import Path

from adapters import AdapterStore, AdapterVersion
from propulsion.errors import ConfigError
from trainer.config import RunConfig
from trainer.engine import load_base
from trainer.evaluation import EvaluationResult, evaluate
from trainer.identity import fingerprint_of
from trainer.records import load_examples


def evaluate_adapter(
    run: RunConfig, adapter: str | None, predictions: Path | None = None
) -> EvaluationResult:
    """Evaluate in this process.

    Args:
        run: gives base, test records, prompt and how answers are read.
        adapter: a PEFT folder, a reference in the run's store, or None for the bare base.
        predictions: JSON lines of what was generated are written here.

    Raises:
        AdapterNotFoundError, AdapterCorruptError, BaseMismatchError: the adapter cannot be used.
    """
    examples = load_examples(run.data.test, run.data, run.data.test_limit)
    version = None if adapter is None or Path(adapter).is_dir() else _verified(run, adapter)
    model, tokenizer = load_base(run.base, run.deepspeed.dtype)
    if version is not None:
        version.require_base(fingerprint_of(run.base), run.base)
    if adapter is not None:
        from peft import PeftModel

        import propulsion  # noqa: F401  registers the method with PEFT

        model = PeftModel.from_pretrained(model, adapter if version is None else version.path)
    result = evaluate(model, tokenizer, examples, run)
    if predictions is not None:
        with predictions.open("w", encoding="utf-8") as file:
            for example, text in zip(examples, result.predictions, strict=True):
                line = {"prompt": example.prompt, "generated": text, "answer": example.answer}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
    return result


def _verified(run: RunConfig, reference: str) -> AdapterVersion:
    if run.publish is None:
        raise ConfigError(
            f"{reference!r} is no folder, and the run file names no store (publish.store)"
        )
    return AdapterStore(run.publish.store).verify(reference)
