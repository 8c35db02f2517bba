"""Prints a plan."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from trainer.planning.plan import MemoryRow, Plan

_MOST_ADAPTERS = 20


def print_plan(plan: Plan, console: Console) -> None:
    """Write a plan's counts and its table of memory."""
    console.print(_counts(plan))
    console.print(_memory(plan))
    kind = "with" if plan.gradient_checkpointing else "without"
    console.print(
        f"Activations: {plan.rows_per_pass} rows of {plan.max_length} tokens, {kind} gradient "
        "checkpointing."
        if plan.activations is not None
        else "Activations are not counted: this model's forward pass depends on its values.",
        highlight=False,
    )


def _counts(plan: Plan) -> Table:
    table = Table(title=f"Run {plan.run} on {plan.base}", title_justify="left")
    for title in ("", "parameters", "% of base", "size"):
        table.add_column(title, justify="right" if title else "left")
    base = plan.counts.base
    table.add_row("base", f"{base:,}", "", "")
    adapters = list(plan.counts.trained.items())
    for name, trained in adapters[:_MOST_ADAPTERS]:
        share = f"{100 * trained / base:.4f}"
        table.add_row(f"adapter {name}", f"{trained:,}", share, _size(4 * trained))
    if len(adapters) > _MOST_ADAPTERS:
        table.add_row(f"… {len(adapters) - _MOST_ADAPTERS} more adapters", "", "", "")
    table.add_section()
    share = f"{100 * plan.trained / base:.4f}"
    table.add_row("trained in all", f"{plan.trained:,}", share, _size(4 * plan.trained))
    table.add_row("checkpoint", "", "", _size(plan.checkpoint_bytes))
    return table


def _memory(plan: Plan) -> Table:
    table = Table(
        title=f"GiB per rank, {plan.world_size} ranks, base in {plan.dtype}",
        title_justify="left",
        caption="▶ is what the run file asks for.",
        caption_justify="left",
    )
    table.add_column("ZeRO stage")
    uses_nvme = any(row.states.nvme for row in plan.memory)
    titles = ["weights", "gathered", "gradients", "optimizer", "activations", "device", "host"]
    for title in [*titles, *(["nvme"] if uses_nvme else [])]:
        table.add_column(title, justify="right")
    for row in plan.memory:
        cells = _cells(plan, row, uses_nvme)
        mark = "▶ " if row.is_own else "  "
        table.add_row(mark + row.placement.name, *cells, style="bold" if row.is_own else None)
    return table


def _cells(plan: Plan, row: MemoryRow, uses_nvme: bool) -> list[str]:
    states, activations = row.states, plan.activation_bytes
    values = [states.weights, states.gathered, states.gradients, states.optimizer]
    cells = [_gib(value) for value in values]
    cells.append("?" if activations is None else _gib(activations))
    cells.append(_gib(states.device + (activations or 0)))
    return [*cells, _gib(states.host), *([_gib(states.nvme)] if uses_nvme else [])]


def _gib(size: float) -> str:
    return f"{size / 2**30:.3f}"


def _size(size: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
