"""Prints a finished run."""

from trainer.loop import RunResult


def print_result(result: RunResult) -> None:
    """One table on standard output."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{result.name}: {result.adapter}")
    for column in ("base", "adapter", "most frequent answer"):
        table.add_column(column, justify="right")
    table.add_column("test records", justify="right")
    table.add_column("trainable parameters", justify="right")
    table.add_row(
        f"{result.base_accuracy:.1%}",
        f"{result.adapter_accuracy:.1%}",
        f"{result.majority_accuracy:.1%}",
        f"{result.num_test:,}",
        f"{result.trainable_parameters:,}",
    )
    Console().print(table)
