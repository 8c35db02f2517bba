"""The pictures of a comparison."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.comparison.comparing import Comparison, Outcome
from trainer.comparison.methods import METHODS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 110
_MIB = 2**20
_MARKERS = "oDPs^v<>Xph8d"
_COLORS = (
    *("#08306b", "#2171b5", "#6baed6"),
    *("tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown"),
    *("tab:pink", "tab:gray", "tab:olive", "tab:cyan", "#222222"),
)
"""Of the methods in their order; those of Propulsion are blue."""


def draw(comparison: Comparison, folder: Path) -> None:
    """Write `score.png`, `convergence.png` and `efficiency.png`.

    Methods that failed are left out; without any other nothing is drawn.
    """
    done = [one for one in comparison.outcomes if one.failure is None and one.runs]
    if not done:
        return
    title = comparison.request.run.name
    _score(done, title).savefig(folder / "score.png", dpi=_DPI)
    _convergence(done, title).savefig(folder / "convergence.png", dpi=_DPI)
    _efficiency(done, title).savefig(folder / "efficiency.png", dpi=_DPI)


def _look(outcome: Outcome) -> dict[str, Any]:
    place = list(METHODS).index(outcome.method.name)
    return {
        "color": _COLORS[place],
        "marker": _MARKERS[place],
        "label": outcome.method.title,
    }


def _figure(title: str, width: float = 8.5, height: float = 4.8) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title, fontweight="bold")
    return figure, figure.subplots()


def _score(done: Sequence[Outcome], title: str) -> Figure:
    figure, axis = _figure(f"{title}: score and trainable parameters")
    for outcome in done:
        scores = [run.score or 0.0 for run in outcome.runs]
        error = statistics.stdev(scores) if len(scores) > 1 else None
        axis.errorbar(
            outcome.runs[0].trainable_parameters,
            statistics.fmean(scores),
            yerr=error,
            linestyle="none",
            markersize=10 if outcome.method.adapter else 8,
            markeredgecolor="white",
            capsize=3,
            **_look(outcome),
        )
    axis.set_xscale("log")
    axis.set_xlabel("trainable parameters")
    axis.set_ylabel(done[0].runs[0].metric)
    _lines_to_beat(axis, done[0])
    axis.grid(alpha=0.3)
    figure.legend(loc="outside right center", frameon=False)
    return figure


def _convergence(done: Sequence[Outcome], title: str) -> Figure:
    figure, axis = _figure(f"{title}: score while training")
    for outcome in done:
        curve = _mean_curve([dict(run.curve) for run in outcome.runs])
        look = _look(outcome)
        axis.plot(
            list(curve),
            list(curve.values()),
            linewidth=2.4 if outcome.method.adapter else 1.3,
            markersize=5,
            **look,
        )
    axis.set_xlabel("step")
    axis.set_ylabel(done[0].runs[0].metric)
    _lines_to_beat(axis, done[0])
    axis.grid(alpha=0.3)
    figure.legend(loc="outside right center", frameon=False)
    return figure


def _mean_curve(curves: Sequence[Mapping[int, float]]) -> dict[int, float]:
    steps = sorted(set.intersection(*(set(curve) for curve in curves)))
    return {step: statistics.fmean(curve[step] for curve in curves) for step in steps}


def _lines_to_beat(axis: Any, outcome: Outcome) -> None:
    trivial = outcome.runs[0].trivial_score
    if trivial is not None:
        axis.axhline(trivial, color="0.4", linewidth=1, linestyle=":", label="most frequent answer")


def _efficiency(done: Sequence[Outcome], title: str) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 1.4 + 0.33 * len(done)), layout="constrained")
    figure.suptitle(f"{title}: time and memory", fontweight="bold")
    left, right = figure.subplots(1, 2, sharey=True)
    names = [outcome.method.title for outcome in done]
    colors = [_look(outcome)["color"] for outcome in done]
    runs = [run for outcome in done for run in outcome.runs]
    by_processor = all(run.cpu_step_seconds is not None for run in runs)
    milliseconds = [
        statistics.fmean(
            1000 * ((run.cpu_step_seconds or 0.0) if by_processor else run.step_seconds)
            for run in outcome.runs
        )
        for outcome in done
    ]
    what = "processor time of" if by_processor else "time of"
    memory = [statistics.fmean(run.peak_bytes / _MIB for run in o.runs) for o in done]
    for axis, values, label in (
        (left, milliseconds, f"{what} the median step, ms"),
        (right, memory, "peak memory, MiB"),
    ):
        bars = axis.barh(names, values, color=colors)
        axis.bar_label(bars, fmt="{:,.0f}", padding=3, fontsize=9)
        axis.set_xlabel(label)
        axis.margins(x=0.14)
        axis.spines[["top", "right"]].set_visible(False)
    left.invert_yaxis()
    return figure
