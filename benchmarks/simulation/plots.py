"""The report's pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_COLOURS = {"affinity": "#3f51b5", "two_choices": "#e08214", "round_robin": "#7f7f7f"}
LABELS = {"affinity": "affinity", "two_choices": "two choices", "round_robin": "round robin"}

Rows = Sequence[Mapping[str, Any]]


def plot_all(
    experiments: Mapping[str, Rows], folder: Path, ttft_seconds: float, price: float
) -> list[str]:
    """Write every picture to a folder; their file names."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {
        "policies.png": lambda: _policies(experiments["host_sizes"]),
        "replicas.png": lambda: _replicas(experiments["replica_counts"], ttft_seconds),
        "cost.png": lambda: _cost(experiments["replica_counts"], ttft_seconds, price),
        "free_queue.png": lambda: _free_queue(experiments["free_queues"]),
        "transient.png": lambda: _transient(experiments["transient"][0]["timeline"]),
    }
    for name, draw in pictures.items():
        figure = draw()
        figure.tight_layout()
        figure.savefig(folder / name, dpi=110)
    return list(pictures)


def _axes(columns: int, rows: int = 1) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5 * columns, 3.1 * rows))
    axes = figure.subplots(rows, columns, sharex=rows > 1)
    for one in [axes] if columns * rows == 1 else axes:
        one.grid(alpha=0.3)
        one.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _plain_ticks(axis: Any) -> None:
    """Numbers, not powers, on a logarithmic axis."""
    from matplotlib.ticker import LogLocator

    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter("")
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))


def _lines(axis: Any, rows: Rows, x: str, y: str, factor: float = 1.0) -> None:
    for policy in _COLOURS:
        own = [row for row in rows if row["policy"] == policy]
        axis.plot(
            [row[x] for row in own],
            [factor * row[y] for row in own],
            marker="o",
            markersize=4,
            color=_COLOURS[policy],
            label=LABELS[policy],
        )


def _policies(rows: Rows) -> Any:
    figure, (hits, times) = _axes(2)
    _lines(hits, rows, "host_adapters", "host_hit_rate", 100)
    _lines(times, rows, "host_adapters", "ttft_p99_seconds", 1000)
    for axis in (hits, times):
        axis.set_xscale("log", base=2)
        axis.set_xticks([row["host_adapters"] for row in rows[::3]])
        axis.xaxis.set_major_formatter("{x:.0f}")
        axis.set_xlabel("adapters in a replica's host memory")
    hits.set(ylabel="adapter in host memory (%)", ylim=(0, 101))
    times.set(ylabel="time to first token, p99 (ms)", ylim=(0, None))
    hits.legend(frameon=False)
    return figure


def _replicas(rows: Rows, ttft_seconds: float) -> Any:
    figure, axis = _axes(1)
    _lines(axis, rows, "replicas", "ttft_p99_seconds", 1000)
    axis.axhline(1000 * ttft_seconds, color="black", linestyle=":", label="promised, for example")
    axis.set(
        xlabel="replicas, of the same traffic",
        ylabel="time to first token, p99 (ms)",
        yscale="log",
    )
    _plain_ticks(axis.yaxis)
    axis.legend(frameon=False)
    return figure


def cost_of(row: Mapping[str, Any], price: float) -> float:
    """Of a million generated tokens, of replicas that cost `price` an hour."""
    return float(1e6 * row["replicas"] * price / (3600 * row["tokens_per_second"]))


def _cost(rows: Rows, ttft_seconds: float, price: float) -> Any:
    figure, axis = _axes(1)
    for policy in _COLOURS:
        own = [row for row in rows if row["policy"] == policy]
        kept = [row["ttft_p99_seconds"] <= ttft_seconds for row in own]
        x = [1000 * row["ttft_p99_seconds"] for row in own]
        y = [cost_of(row, price) for row in own]
        axis.plot(x, y, color=_COLOURS[policy], label=LABELS[policy])
        faces = [_COLOURS[policy] if ok else "white" for ok in kept]
        axis.scatter(x, y, c=faces, edgecolors=_COLOURS[policy], s=28, zorder=3)
    axis.axvline(1000 * ttft_seconds, color="black", linestyle=":", label="promised, for example")
    axis.set(
        xlabel="time to first token, p99 (ms)",
        ylabel="cost of a million tokens",
        xscale="log",
        ylim=(0, None),
    )
    _plain_ticks(axis.xaxis)
    axis.legend(frameon=False)
    return figure


def _free_queue(rows: Rows) -> Any:
    figure, (hits, times) = _axes(2)
    queues = [row["free_queue"] for row in rows]
    hits.plot(queues, [100 * row["host_hit_rate"] for row in rows], "o-", color="#3f51b5")
    for key, style in (("ttft_p50_seconds", "o--"), ("ttft_p99_seconds", "o-")):
        label = key.split("_")[1]
        times.plot(queues, [1000 * row[key] for row in rows], style, color="#3f51b5", label=label)
    for axis in (hits, times):
        axis.set_xlabel("queue that is never too long (free_queue)")
    hits.set(ylabel="adapter in host memory (%)", ylim=(0, 101))
    times.set(ylabel="time to first token (ms)", ylim=(0, None))
    times.legend(frameon=False)
    return figure


def _transient(line: Mapping[str, Any]) -> Any:
    figure, (fleet, load, times) = _axes(1, 3)
    window = line["window_seconds"]
    load.plot(line["seconds"], line["ongoing"], color="#7f7f7f")
    load.set(ylabel="requests under way", ylim=(0, None))
    fleet.step(line["seconds"], line["serving"], color="#3f51b5", label="serving")
    fleet.step(line["seconds"], line["starting"], color="#e08214", label="starting")
    fleet.set(ylabel="replicas", ylim=(0, None))
    fleet.legend(frameon=False)
    times.plot(window, [1000 * seconds for seconds in line["window_ttft_p99"]], color="#3f51b5")
    times.set(ylabel="first token, p99 (ms)", xlabel="seconds", yscale="log")
    _plain_ticks(times.yaxis)
    figure.set_size_inches(7, 7)
    return figure
