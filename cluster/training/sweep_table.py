"""Prints a sweep that has ended."""

from cluster.training.sweep import SweepResult


def print_sweep(name: str, result: SweepResult) -> None:
    """One table on standard output, the best trial first."""
    from rich.console import Console
    from rich.table import Table

    table = Table("trial", title=name)
    for column in ("score", "steps", ""):
        table.add_column(column, justify="right")
    for one in result.trials:
        score = "" if one.score is None else f"{one.score:.3f}"
        table.add_row(one.name, score, f"{one.steps:,}", "" if one.is_finished else "stopped")
    console = Console()
    console.print(table)
    console.print(f"best: {result.adapter}")
    if result.held_back:
        console.print(f"it does not pass its gate, no alias moves: {result.held_back}")
