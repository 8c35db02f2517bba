"""What came of a comparison, as a table in Markdown and as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from trainer.comparison.comparing import Comparison, Outcome
from trainer.comparison.measured import Measured, steps_to_near_best
from trainer.comparison.methods import NOT_RUN

_MIB = 2**20
_HEAD = (
    "method",
    "learning rate",
    "score",
    "trainable",
    "% of base",
    "steps to 90 %",
    "training, s",
    "step, ms",
    "step, CPU ms",
    "peak memory, MiB",
)
_MEMORY = {
    "cuda": "most bytes allocated on the GPU (`torch.cuda.max_memory_allocated`)",
    "rss": (
        "largest resident set of the process, less that after the imports and before the base was "
        "loaded"
    ),
}


def markdown(comparison: Comparison, made_with: dict[str, str]) -> str:
    """The table, and below it what it means."""
    request = comparison.request
    rows = [_row(outcome) for outcome in comparison.outcomes]
    rows += [[title, *["not yet run", *[""] * (len(_HEAD) - 2)]] for title in NOT_RUN]
    lines = [f"# {request.run.name}: methods compared", ""]
    lines += ["| " + " | ".join(_HEAD) + " |", "| --- " + "| ---: " * (len(_HEAD) - 1) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    lines += ["", *_notes(comparison), "", f"    {made_with['command']}", ""]
    lines += [f"{made_with['versions']}; {made_with['machine']}.", ""]
    return "\n".join(lines)


def tree(comparison: Comparison, made_with: dict[str, str]) -> dict[str, Any]:
    """All numbers, for `comparison.json`."""
    request, holdout = comparison.request, comparison.holdout
    return {
        **made_with,
        "run": request.run.model_dump(mode="json"),
        "seeds": list(request.seeds),
        "held_out": None if holdout is None else asdict(holdout) | {"path": holdout.path.name},
        "methods": [
            {
                "method": outcome.method.name,
                "title": outcome.method.title,
                "lr": outcome.lr,
                "tried": {f"{lr:g}": score for lr, score in outcome.tried.items()},
                "failure": outcome.failure,
                "score": outcome.score,
                "runs": [
                    asdict(run) | {"steps_to_near_best": steps_to_near_best(run)}
                    for run in outcome.runs
                ],
            }
            for outcome in comparison.outcomes
        ],
        "not_run": list(NOT_RUN),
    }


def spread(values: Sequence[float], digits: int) -> str:
    """Mean, and standard deviation if there are several."""
    text = f"{statistics.fmean(values):.{digits}f}"
    return text if len(values) < 2 else f"{text} ± {statistics.stdev(values):.{digits}f}"


def _row(outcome: Outcome) -> list[str]:
    title = outcome.method.title
    if outcome.failure is not None or not outcome.runs:
        reason = (outcome.failure or "").replace("|", "\\|").replace("\n", " ")
        return [title, f"{outcome.lr:g}", f"failed: {reason}", *[""] * (len(_HEAD) - 3)]
    runs, first = outcome.runs, outcome.runs[0]
    return [
        title,
        f"{outcome.lr:g}",
        spread([run.score or 0.0 for run in runs], 3),
        f"{first.trainable_parameters:,}",
        f"{100 * first.trainable_parameters / first.base_parameters:.3f}",
        _steps(runs),
        spread([run.train_seconds for run in runs], 1),
        spread([1000 * run.step_seconds for run in runs], 0),
        _milliseconds([run.cpu_step_seconds for run in runs]),
        spread([run.peak_bytes / _MIB for run in runs], 0),
    ]


def _milliseconds(values: Sequence[float | None]) -> str:
    known = [1000 * value for value in values if value is not None]
    return spread(known, 0) if known else ""


def _steps(runs: Sequence[Measured]) -> str:
    found = [steps for run in runs if (steps := steps_to_near_best(run)) is not None]
    return f"{statistics.fmean(found):.0f}" if found else ""


def _notes(comparison: Comparison) -> list[str]:
    request = comparison.request
    job = request.run.jobs[0]
    training = job.training
    done = [run for outcome in comparison.outcomes for run in outcome.runs]
    notes = [
        f"Base `{_base_name(request.run.base)}`. Every method: {training.steps} steps of "
        f"{training.batch_size} records in the same order, {training.schedule} schedule with "
        f"{training.warmup_ratio:.0%} warm-up, gradient norm at most {training.clip}, seeds "
        f"{', '.join(map(str, request.seeds))}."
    ]
    if done:
        one = done[0]
        notes.append(f"Score: {one.metric} on {one.num_test} test records, after the last step.")
        if one.base_score is not None:
            notes.append(f"The bare base has {one.base_score:.3f}.")
        if one.trivial_score is not None:
            notes.append(f"Always the most frequent answer has {one.trivial_score:.3f}.")
        notes.append(
            "Trainable: a head included, if the task has one. Steps to 90 %: the first evaluation "
            "within a tenth of the run's own best. Training: seconds in steps, without loading and "
            "evaluation; a step: the median one, on the wall and of the processor (which other "
            f"processes do not disturb). Peak memory: {_MEMORY[one.memory_kind]}."
        )
    if comparison.holdout is not None:
        held = comparison.holdout
        tried = ", ".join(f"{rate:g}" for rate in request.rates)
        notes.append(
            f"Learning rates were chosen of {tried} by the score on {held.num_records} held-out "
            f"records, the end of the training records; nothing was trained on them, and nothing "
            f"was chosen by the test records. All methods trained on the {held.num_train} others."
        )
    else:
        notes.append("Learning rates were not chosen by any score.")
    if request.own_rates:
        given = ", ".join(f"{name} {rate:g}" for name, rate in request.own_rates.items())
        notes.append(f"Given rates: {given}.")
    return [" ".join(notes)]


def _base_name(base: str) -> str:
    return "/".join(base.rstrip("/").split("/")[-2:])
