"""A serving plan on the terminal."""

from __future__ import annotations

from typing import Any

from cluster.capacity.planning.plan import ServingPlan

_MIB = 2**20


def print_serving_plan(plan: ServingPlan, console: Any) -> None:
    """Print the plan as one table, and what to beware of."""
    from rich.table import Table

    demand, forecast = plan.demand, plan.forecast
    table = Table(
        title=f"{demand.adapters:,} adapters, {demand.requests_per_second:,g} requests/s on "
        f"{plan.device}",
        show_header=False,
    )
    table.add_column()
    table.add_column(justify="right")
    table.add_row("replicas", f"{forecast.replicas:,}")
    table.add_row("GPUs", f"{plan.gpus:,}" if plan.gpus else "none, measured on a CPU")
    table.add_row("limited by", plan.limited_by)
    table.add_row(
        "time to first token, p50 / p99 / promised (s)",
        f"{forecast.ttft_p50:.3f} / {forecast.ttft_p99:.3f} / {demand.ttft_p99_seconds:g}",
    )
    table.add_row(
        "time between tokens, p99 / promised (s)",
        f"{forecast.inter_token_p99:.4f} / {demand.inter_token_p99_seconds:g}",
    )
    table.add_row("adapter in host memory", f"{forecast.host_hit_rate:.1%}")
    table.add_row("adapter in a slot as it joins a batch", f"{forecast.slot_hit_rate:.1%}")
    table.add_row(
        "throughput used, at most (requests/s)",
        f"{forecast.utilisation:.0%} of {forecast.most_requests_per_second:,.1f}",
    )
    table.add_row("slots of a replica (MiB)", f"{plan.slot_bytes_per_replica / _MIB:,.1f}")
    table.add_row("host memory of a replica (MiB)", f"{plan.host_bytes_per_replica / _MIB:,.1f}")
    if plan.cost_per_million_tokens is not None:
        table.add_row("cost of a million tokens", f"{plan.cost_per_million_tokens:,.2f}")
    console.print(table)
    for warning in plan.warnings:
        console.print(f"beware: {warning}", style="yellow")
