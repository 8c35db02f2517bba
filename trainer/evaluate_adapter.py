"""Evaluates a saved adapter, or the bare base, on a run's test records."""

from __future__ import annotations

import json
from pathlib import Path

from trainer.config import RunConfig
from trainer.engine import load_base
from trainer.evaluation import EvaluationResult, evaluate
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
    folder = None if adapter is None else _adapter_folder(run, adapter)
    model, tokenizer = load_base(run.base, run.deepspeed.dtype)
    if folder is not None:
        from peft import PeftModel

        import propulsion  # noqa: F401  registers the method with PEFT

        model = PeftModel.from_pretrained(model, folder)
    result = evaluate(model, tokenizer, examples, run)
    if predictions is not None:
        with predictions.open("w", encoding="utf-8") as file:
            for example, text in zip(examples, result.predictions, strict=True):
                line = {"prompt": example.prompt, "generated": text, "answer": example.answer}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
    return result


def _adapter_folder(run: RunConfig, adapter: str) -> str:
    if Path(adapter).is_dir():
        return adapter
    from adapters import AdapterStore, base_fingerprint
    from propulsion.errors import ConfigError

    if run.publish is None:
        raise ConfigError(
            f"{adapter!r} is no folder, and the run file names no store (publish.store)"
        )
    store = AdapterStore(run.publish.store)
    version = store.verify(adapter)
    version.require_base(base_fingerprint(run.base), run.base)
    return str(version.path)
