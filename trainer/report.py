"""Prints a finished run."""

from trainer.result import RunResult


def print_result(result: RunResult) -> None:
    """One table on standard output, a row for each adapter.

    "majority" is the score of always giving the most frequent answer.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table(title=result.name)
    table.add_column("adapter")
    table.add_column("score")
    for column in ("base", "tuned", "majority", "records", "parameters", "steps"):
        table.add_column(column, justify="right")
    for one in result.adapters:
        steps = f"{one.steps:,}" if one.status == "finished" else f"{one.steps:,} ({one.status})"
        table.add_row(
            one.adapter,
            one.metric,
            _score(one.base_score),
            _score(one.score),
            _score(one.trivial_score),
            f"{one.num_test:,}",
            f"{one.trainable_parameters:,}",
            steps,
        )
    console = Console()
    console.print(table)
    for one in result.adapters:
        if one.held_back:
            console.print(f"{one.adapter} does not pass its gate: {one.held_back}")


def _score(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
