"""What a run's counts, times and memory come to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# The share of the run after which the server is taken to be warm.
WARM = 0.4


@dataclass(frozen=True)
class Snapshot:
    """The server's counters at one moment of the run, and the clients' count of requests."""

    seconds: float
    requests: int
    counters: dict[str, float]


def rates(before: Snapshot, after: Snapshot) -> dict[str, Any]:
    """Requests a second, hit rates and evictions between two moments; None where not known."""
    if not before.counters or not after.counters or after.requests == before.requests:
        return dict.fromkeys(("requests_per_second", "host_hit_rate", "slot_hit_rate", "evictions"))

    def grown(name: str) -> float:
        return after.counters.get(name, 0.0) - before.counters.get(name, 0.0)

    def hit_rate(level: str) -> float:
        hits, misses = grown(f"{level}_hits_total"), grown(f"{level}_misses_total")
        return hits / max(hits + misses, 1)

    num_requests = after.requests - before.requests
    return {
        "requests_per_second": num_requests / (after.seconds - before.seconds),
        "host_hit_rate": hit_rate("host_cache"),
        "slot_hit_rate": hit_rate("slot"),
        "evictions": {level: grown(f"evictions_total_{level}") for level in ("host", "slot")},
    }


def quantiles(times: dict[bool, list[float]]) -> dict[str, dict[str, float] | None]:
    """p50, p90, p99 and the most, of all and by whether the adapter was in host memory."""

    def of(values: list[float]) -> dict[str, float] | None:
        if not values:
            return None
        found = np.percentile(values, [50, 90, 99, 100]).tolist()
        return dict(zip(("p50", "p90", "p99", "most"), found, strict=True))

    return {"all": of(times[True] + times[False]), "hit": of(times[True]), "miss": of(times[False])}


def memory_summary(samples: Sequence[tuple[float, dict[str, float]]]) -> dict[str, Any]:
    """MiB at 20 % and at the end, and the slope of the rest after 40 %, by process."""
    seconds = np.array([elapsed for elapsed, _ in samples])
    summary: dict[str, Any] = {}
    for who in samples[0][1]:
        mib = np.array([sizes[who] for _, sizes in samples])
        warm = seconds >= WARM * seconds[-1]
        slope = error = None
        if warm.sum() > 3:
            line, covariance = np.polyfit(seconds[warm] / 60, mib[warm], 1, cov=True)
            slope, error = float(line[0]), float(covariance[0, 0] ** 0.5)
        summary[who] = {
            "mib_at_20_percent": float(mib[np.searchsorted(seconds, 0.2 * seconds[-1])]),
            "mib_at_end": float(mib[-1]),
            "slope_mib_per_minute": slope,
            "slope_standard_error": error,
        }
    return summary


def print_result(result: dict[str, Any]) -> None:
    """One table, and the first error of each kind."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{result['requests']:,} requests in {result['seconds']:.0f} s")
    for column in ("", "whole run", "last 60 %"):
        table.add_column(column, justify="right" if column else "left")

    def add(name: str, form: str, *values: float | None) -> None:
        table.add_row(name, *("-" if value is None else format(value, form) for value in values))

    parts = (result, result["steady"])
    add("errors", "d", sum(result["errors"].values()))
    add("requests a second", ",.1f", *(part["requests_per_second"] for part in parts))
    for level in ("host", "slot"):
        add(f"{level} hit rate", ".1%", *(part[f"{level}_hit_rate"] for part in parts))
        found = [(part["evictions"] or {}).get(level) for part in parts]
        add(f"{level} evictions", ",.0f", *found)
    for kind, times in result["first_token_seconds"].items():
        for quantile, seconds in (times or {}).items():
            add(f"first token, {kind}, {quantile} (ms)", ",.1f", 1e3 * seconds)
    for who, found in result["memory"].items():
        ends = (found["mib_at_20_percent"], found["mib_at_end"])
        add(f"{who}, MiB at 20 %, at the end", ",.0f", *ends)
        line = (found["slope_mib_per_minute"], found["slope_standard_error"])
        add(f"{who}, MiB a minute, its error", ".2f", *line)
    Console().print(table)
    for kind, count in result["errors"].items():
        print(f"{count} × {kind}: {result['first_errors'][kind]}")
