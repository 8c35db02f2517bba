"""One run of `propulsion ntk`: from its options to its files."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from propulsion.analysis.comparison import Comparison, compare, num_gradients
from propulsion.analysis.loading import (
    AdaptedModel,
    adapter_task,
    load_base,
    load_tokenizer,
    with_fresh_adapter,
    with_trained_adapter,
)
from propulsion.analysis.samples import Sample, draw_samples, read_texts
from propulsion.analysis.scalar_output import (
    DESCRIPTIONS,
    Probe,
    Task,
    causal_lm_probes,
    classification_probes,
)
from propulsion.analysis.staging import staged
from propulsion.errors import ConfigError

RESULTS, KERNELS, DRIFT = "ntk.json", "ntk_kernels.png", "ntk_drift.png"
"""The files of a run; the last only with a trained adapter."""


@dataclass(frozen=True)
class NtkOptions:
    """The options of the command; see there."""

    base: str
    data: Path
    column: str | None
    samples: int
    max_length: int
    adapter: Path | None
    preset: str | None
    degree: int | None
    task: str | None
    num_labels: int | None
    seed: int
    max_memory: float
    out: Path


def run_ntk(options: NtkOptions) -> Comparison:
    """Compute, write the files, print a table.

    Raises:
        AdapterCorruptError: the adapter's files are damaged.
        BaseMismatchError: the adapter is of another base.
        ConfigError: an option is wrong, or the folder cannot be written to.
        DataError: the samples cannot be read, or are too few.
        PropulsionError: there is nothing to compare; nothing is written then.
    """
    from rich.console import Console

    from propulsion.analysis import tables
    from propulsion.analysis.heat_maps import draw_drift, draw_kernels

    began = time.monotonic()
    task = _task(options)
    texts = read_texts(options.data, options.column)
    with staged(options.out, outdated=(RESULTS, KERNELS, DRIFT)) as folder:
        tokenizer = load_tokenizer(options.base)
        model, task = load_base(options.base, task, options.num_labels, options.seed)
        samples = draw_samples(
            texts,
            lambda text: _token_ids(tokenizer, text, options.max_length, task),
            options.samples,
            min_tokens=2 if task is Task.CAUSAL_LM else 1,
            seed=options.seed,
            source=options.data,
        )
        adapted = _adapt(model, options)
        probes = _probes(adapted, task, samples)
        comparison = _compare(adapted, task, probes, int(options.max_memory * 2**30))
        draw_kernels(comparison, folder / KERNELS)
        if comparison.drift is not None:
            draw_drift(comparison, comparison.drift, folder / DRIFT)
        seconds = time.monotonic() - began
        report = _report(options, task, adapted, samples, probes, comparison, seconds)
        (folder / RESULTS).write_text(json.dumps(report, indent=1, allow_nan=False), "utf-8")
    console = Console()
    run = {
        "base": options.base,
        "adapter": str(options.adapter or "fresh"),
        "samples": f"{options.samples} of {options.data}",
    }
    console.print(tables.comparison_table(comparison, run, _num_parameters(adapted), seconds))
    for name in (RESULTS, KERNELS, DRIFT)[: 2 if comparison.drift is None else 3]:
        console.print(str(options.out / name), markup=False, highlight=False)
    return comparison


def _task(options: NtkOptions) -> Task | None:
    if options.adapter is not None and (options.preset, options.degree) != (None, None):
        raise ConfigError(
            "--preset and --degree are of a fresh adapter, and --adapter has its own: give either"
        )
    if options.task is not None:
        try:
            return Task(options.task)
        except ValueError:
            raise ConfigError(
                f"unknown --task {options.task!r}; choose one of {', '.join(Task)}"
            ) from None
    return None if options.adapter is None else adapter_task(options.adapter)


def _token_ids(tokenizer: Any, text: str, max_length: int, task: Task) -> list[int]:
    token_ids: list[int] = tokenizer(text, truncation=True, max_length=max_length)["input_ids"]
    # The last token of a sample is to be one of its text.
    if task is Task.CAUSAL_LM and token_ids[-1:] == [tokenizer.eos_token_id]:
        del token_ids[-1]
    return token_ids


def _adapt(model: Any, options: NtkOptions) -> AdaptedModel:
    if options.adapter is not None:
        return with_trained_adapter(model, options.adapter)
    return with_fresh_adapter(model, options.preset, options.degree)


def _probes(adapted: AdaptedModel, task: Task, samples: list[Sample]) -> list[Probe]:
    if task is Task.CAUSAL_LM:
        return causal_lm_probes(samples)
    return classification_probes(adapted.model, adapted.zeros, samples)


def _compare(adapted: AdaptedModel, task: Task, probes: list[Probe], max_bytes: int) -> Comparison:
    from rich.console import Console
    from rich.progress import Progress

    total = num_gradients(adapted, len(probes), max_bytes)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("gradients", total=total)
        return compare(adapted, task, probes, max_bytes, lambda: progress.advance(bar))


def _num_parameters(adapted: AdaptedModel) -> tuple[int, int]:
    full, offsets = (
        sum(parameter.numel() for parameter in parameters.values())
        for parameters in (adapted.base, adapted.start)
    )
    return full, offsets


def _report(
    options: NtkOptions,
    task: Task,
    adapted: AdaptedModel,
    samples: list[Sample],
    probes: list[Probe],
    comparison: Comparison,
    seconds: float,
) -> dict[str, Any]:
    import torch
    import transformers

    from propulsion.version import __version__

    settings = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in asdict(options).items()
    }
    full, offsets = _num_parameters(adapted)
    return {
        "run": {
            **settings,
            "task": task.value,
            "propulsion": __version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "seconds": round(seconds, 3),
        },
        "scalar_output": DESCRIPTIONS[task],
        "num_parameters": {"full": full, "propulsion": offsets},
        "samples": [
            {"line": sample.line, "tokens": len(sample.token_ids), "target": probe.target}
            for sample, probe in zip(samples, probes, strict=True)
        ],
        **comparison.to_json(),
    }
