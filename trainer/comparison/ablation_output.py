"""The tables, numbers and plots of the ablations."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.comparison.ablating import VariantOutcome, ablate
from trainer.comparison.output import write_text
from trainer.comparison.table import spread
from trainer.config import RunConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 110
_LABELS = {
    "degree": "degree k",
    "position": "layers that are scaled",
    "init": "first value of z",
    "layers": "blocks that are adapted, from the first",
    "vectors": "vectors per layer",
    "pooling": "pooling of several vectors",
}
_NUMBERS = ("degree", "layers", "vectors")


def ablate_and_write(
    run: RunConfig,
    out: Path,
    *,
    names: Sequence[str],
    degrees: Sequence[int],
    seeds: Sequence[int],
    together: int,
) -> list[VariantOutcome]:
    """Ablate, and write `ablation.json`, `ablation.md` and a plot for each ablation.

    Arguments and errors are those of `ablate`.
    """
    from rich.console import Console

    from trainer.comparison.provenance import provenance

    console = Console(stderr=True)
    made_with = provenance()
    outcomes = ablate(
        run,
        out,
        names=names,
        degrees=degrees,
        seeds=seeds,
        together=together,
        tell=lambda line: console.print(line, highlight=False),
    )
    tables = _markdown(run, outcomes, seeds, made_with)
    numbers = {
        **made_with,
        "run": run.model_dump(mode="json"),
        "seeds": list(seeds),
        "variants": [asdict(one) | {"variant": _variant_tree(one)} for one in outcomes],
    }
    write_text(out / "ablation.json", json.dumps(numbers, indent=1) + "\n")
    write_text(out / "ablation.md", tables)
    for name, group in _by_ablation(outcomes):
        figure = _plot(run.name, name, group)
        if figure is not None:
            figure.savefig(out / f"{name}.png", dpi=_DPI)
    print(tables)
    return outcomes


def _variant_tree(outcome: VariantOutcome) -> dict[str, Any]:
    variant = outcome.variant
    settings = variant.adapter.model_dump(mode="json")
    return {"ablation": variant.ablation, "value": variant.value, "adapter": settings}


def _by_ablation(outcomes: Sequence[VariantOutcome]) -> list[tuple[str, list[VariantOutcome]]]:
    grouped = groupby(outcomes, key=lambda outcome: outcome.variant.ablation)
    return [(name, list(group)) for name, group in grouped]


def _markdown(
    run: RunConfig,
    outcomes: Sequence[VariantOutcome],
    seeds: Sequence[int],
    made_with: dict[str, str],
) -> str:
    job = run.jobs[0]
    lines = [f"# {run.name}: ablations", ""]
    for name, group in _by_ablation(outcomes):
        lines += [f"## {name}", "", f"| {_LABELS[name]} | score | trainable |"]
        lines += ["| --- | ---: | ---: |"]
        lines += ["| " + " | ".join(row) + " |" for row in (_base(group), *map(_row, group)) if row]
        lines.append("")
    first = next((r for outcome in outcomes for r in outcome.results), None)
    if first is not None:
        trivial = first.trivial_score
        beside = "" if trivial is None else f" Always the most frequent answer has {trivial:.3f}."
        lines += [f"Score: {first.metric} on {first.num_test} test records.{beside}"]
    lines += [
        f"Every variant: {job.training.steps} steps of {job.training.batch_size} records, learning "
        f"rate {job.training.lr:g} (which is not chosen for each: z^k moves k times as fast as z), "
        f"seeds {', '.join(map(str, seeds))}; all else as in the run file. All variants were "
        "trained together over one base.",
        "",
        f"    {made_with['command']}",
        "",
        f"{made_with['versions']}; {made_with['machine']}.",
        "",
    ]
    return "\n".join(lines)


def _base(group: Sequence[VariantOutcome]) -> list[str] | None:
    results = [result for outcome in group for result in outcome.results]
    if not results:
        return None
    score = results[0].base_score
    return ["bare base", "has no head" if score is None else f"{score:.3f}", "0"]


def _row(outcome: VariantOutcome) -> list[str]:
    name = str(outcome.variant.value)
    if outcome.failure is not None or not outcome.results:
        reason = (outcome.failure or "").replace("|", "\\|").replace("\n", " ")
        return [name, f"failed: {reason}", ""]
    scores = [result.score or 0.0 for result in outcome.results]
    return [name, spread(scores, 3), f"{outcome.results[0].trainable_parameters:,}"]


def _plot(run_name: str, name: str, group: Sequence[VariantOutcome]) -> Figure | None:
    from matplotlib.figure import Figure

    done = [outcome for outcome in group if outcome.results and outcome.failure is None]
    if not done:
        return None
    figure = Figure(figsize=(6.5, 4.0), layout="constrained")
    figure.suptitle(f"{run_name}: {name}", fontweight="bold")
    axis = figure.subplots()
    scores = [[result.score or 0.0 for result in outcome.results] for outcome in done]
    means = [statistics.fmean(values) for values in scores]
    errors = [statistics.stdev(values) if len(values) > 1 else 0.0 for values in scores]
    bars = errors if any(errors) else None
    if name in _NUMBERS:
        places = [int(outcome.variant.value) for outcome in done]
        axis.errorbar(places, means, yerr=bars, marker="o", color="#2171b5", capsize=3)
        axis.set_xticks(places)
    else:
        labels = [str(outcome.variant.value) for outcome in done]
        drawn = axis.bar(labels, means, yerr=bars, color="#2171b5", width=0.6, capsize=3)
        axis.bar_label(drawn, fmt="{:.3f}", padding=2, fontsize=9)
        axis.margins(y=0.12)
    first = done[0].results[0]
    for value, style, label in (
        (first.base_score, "--", "bare base"),
        (first.trivial_score, ":", "most frequent answer"),
    ):
        if value is not None:
            axis.axhline(value, color="0.4", linewidth=1, linestyle=style, label=label)
    axis.set_xlabel(_LABELS[name])
    axis.set_ylabel(first.metric)
    axis.grid(alpha=0.3, axis="y")
    if axis.get_legend_handles_labels()[1]:
        figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure
