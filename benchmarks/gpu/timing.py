"""Times on a GPU, of calls captured in a CUDA graph; without one nothing is timed."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from typing import Any

import torch

NOT_MEASURED = "not measured"


def captured(call: Callable[[], Any]) -> Callable[[], None]:
    """The call as a CUDA graph, warmed up; its memory lives as long as the graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def seconds(replay: Callable[[], None], repeats: int) -> float:
    """Of one replay, on average over some in a row, on the GPU's clock."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(repeats):
        replay()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3 / repeats


def rounds_of(
    replays: Mapping[str, Callable[[], None]], rounds: int, budget_seconds: float
) -> dict[str, list[float]]:
    """Seconds of each, side by side: every round times all of them, in a rotating order.

    Args:
        replays: captured calls by name.
        rounds: how many.
        budget_seconds: about what all rounds together may take.
    """
    names = list(replays)
    once = {name: seconds(replay, 2) for name, replay in replays.items()}
    repeats = max(1, min(50, int(budget_seconds / rounds / sum(once.values()))))
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            times[name].append(seconds(replays[name], repeats))
    return times


def spread(values: list[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, _, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    return {"median": statistics.median(values), "low": low, "high": high}
