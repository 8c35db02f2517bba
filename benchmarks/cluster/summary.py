"""What the rounds and the faults come to."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import mean
from typing import Any

from benchmarks.cluster.load import Outcomes


@dataclass(frozen=True)
class Round:
    """One round of traffic.

    Attributes:
        hit_rate: share of requests whose adapter their replica held when they came.
        requests_per_second: answered.
        outcomes: what the clients saw.
    """

    hit_rate: float
    requests_per_second: float
    outcomes: Outcomes


@dataclass(frozen=True)
class Fault:
    """What a loss cost.

    Attributes:
        kind: "engine" or "node".
        recovery_seconds: from the kill until as many replicas ran as before.
        longest_pause_seconds: most seconds after the kill without any request ending well.
        outcomes: what the clients saw.
    """

    kind: str
    recovery_seconds: float
    longest_pause_seconds: float
    outcomes: Outcomes


def summary(rounds: dict[str, list[Round]], faults: list[Fault]) -> dict[str, Any]:
    """The fields of the JSON."""
    seen = [fault.outcomes for fault in faults]
    seen += [part.outcomes for parts in rounds.values() for part in parts]
    result: dict[str, Any] = {
        "affinity_hit_rate": mean(part.hit_rate for part in rounds["affinity"]),
        "round_robin_hit_rate": mean(part.hit_rate for part in rounds["round_robin"]),
        "failed_requests": sum(outcomes.failed for outcomes in seen),
        "recovery_seconds": max(fault.recovery_seconds for fault in faults),
        "requests": sum(outcomes.requests for outcomes in seen),
        "broken_streams": sum(outcomes.broken for outcomes in seen),
        "streams_cut_without_a_word": sum(outcomes.cut for outcomes in seen),
        "failures": [dict(outcomes.unstarted) for outcomes in seen if outcomes.failed],
    }
    result["rounds"] = {
        routing: {
            "hit_rates": [part.hit_rate for part in parts],
            "requests_per_second": [part.requests_per_second for part in parts],
        }
        for routing, parts in rounds.items()
    }
    result["faults"] = {
        fault.kind: {
            "recovery_seconds": fault.recovery_seconds,
            "longest_pause_seconds": fault.longest_pause_seconds,
            "requests": fault.outcomes.requests,
            "failed_requests": fault.outcomes.failed,
            "broken_streams": fault.outcomes.broken,
        }
        for fault in faults
    }
    return result


def print_result(result: dict[str, Any]) -> None:
    """One table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{result['requests']:,} requests")
    for column in ("", "affinity", "round robin"):
        table.add_column(column, justify="right" if column else "left")
    both = [result["rounds"][routing] for routing in ("affinity", "round_robin")]
    table.add_row("hit rate", *(_spread(part["hit_rates"], ".1%") for part in both))
    table.add_row(
        "requests a second", *(_spread(part["requests_per_second"], ".0f") for part in both)
    )
    console = Console()
    console.print(table)
    faults = Table(title="Replicas lost under load")
    columns = (
        "killed",
        "recovery (s)",
        "longest pause (s)",
        "requests",
        "failed",
        "broken streams",
    )
    for column in columns:
        faults.add_column(column, justify="left" if column == "killed" else "right")
    for kind, part in result["faults"].items():
        faults.add_row(
            kind,
            f"{part['recovery_seconds']:.1f}",
            f"{part['longest_pause_seconds']:.1f}",
            *(str(part[name]) for name in ("requests", "failed_requests", "broken_streams")),
        )
    console.print(faults)
    for failures in result["failures"]:
        print(failures)


def _spread(values: list[float], form: str) -> str:
    return f"{mean(values):{form}} ({min(values):{form}} to {max(values):{form}})"
