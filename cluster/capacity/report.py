"""Measured times and simulated outcomes in short, on the terminal and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cluster.capacity.simulation.outcome import Outcome
from cluster.capacity.times import ReplicaTimes

SKIP = 0.3
"""Share of the requests that is left out of latencies and hit rates: the fleet starts empty."""


def outcome_summary(outcome: Outcome) -> dict[str, float]:
    """The figures of a simulation; times in seconds."""
    p50, p99 = outcome.first_token_quantiles([0.5, 0.99], SKIP)
    return {
        "requests": len(outcome.traffic),
        "failed_requests": outcome.failed,
        "retries": outcome.retries,
        "host_hit_rate": outcome.host_hit_rate(SKIP),
        "slot_hit_rate": outcome.slot_hit_rate,
        "ttft_p50_seconds": p50,
        "ttft_p99_seconds": p99,
        "inter_token_p50_seconds": outcome.gaps.quantile(0.5),
        "inter_token_p99_seconds": outcome.gaps.quantile(0.99),
        "tokens_per_second": outcome.output_tokens / outcome.seconds,
        "requests_per_second": len(outcome.traffic) / outcome.seconds,
        "replica_seconds": outcome.replica_seconds,
        "seconds": outcome.seconds,
    }


def print_outcomes(found: Mapping[str, Mapping[str, float]], console: Any) -> None:
    """One column for each policy."""
    from rich.table import Table

    table = Table()
    table.add_column()
    for name in found:
        table.add_column(name, justify="right")
    forms = {"host_hit_rate": ".1%", "slot_hit_rate": ".1%"}
    for key in next(iter(found.values())):
        cells = (format(summary[key], forms.get(key, ",.4g")) for summary in found.values())
        table.add_row(key.replace("_", " "), *cells)
    console.print(table)


def print_times(times: ReplicaTimes, console: Any) -> None:
    """The measured times as one table."""
    from rich.table import Table

    step, adapter = times.step, times.adapter
    table = Table(title=f"{times.conditions.base} on {times.conditions.device}", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, seconds in (
        ("a step", step.fixed_seconds),
        ("and for each sequence", step.per_sequence_seconds),
        ("for each prompt token", step.per_prefill_token_seconds),
        ("for each request that joins", step.per_admission_seconds),
        ("a request's way", times.request_seconds),
        ("an adapter from the store", adapter.load_seconds),
        ("of which the engine stands still", adapter.load_blocking_seconds),
        ("an adapter into a slot", adapter.slot_write_seconds),
    ):
        table.add_row(f"{name} (ms)", f"{1e3 * seconds:,.3f}")
    table.add_row("until a replica serves (s)", f"{times.boot_seconds:,.1f}")
    table.add_row("error of the fit, median / worst", _errors(times))
    table.add_row("spread of the repeats", f"{times.fit.spread:.0%}")
    console.print(table)


def _errors(times: ReplicaTimes) -> str:
    return f"{times.fit.median_error:.0%} / {times.fit.worst_error:.0%}"
