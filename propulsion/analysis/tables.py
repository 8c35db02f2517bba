"""The tables that the commands print."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from propulsion.analysis.comparison import Comparison
from propulsion.analysis.inspection import NEAR_ONE, ScaleStatistics


def comparison_table(
    comparison: Comparison, run: Mapping[str, str], parameters: tuple[int, int], seconds: float
) -> Table:
    """What `propulsion ntk` found.

    Args:
        comparison: the kernels.
        run: what it was run on, by name.
        parameters: of full fine-tuning and of Propulsion.
        seconds: that it took.
    """
    distances, drift = comparison.distances, comparison.drift
    full, offsets = parameters
    table = Table(show_header=False, title="Tangent kernels", title_justify="left")
    table.add_column()
    table.add_column(justify="right", overflow="fold")
    _section(table, "Run", [(name, _plain(value)) for name, value in run.items()])
    _section(
        table,
        "Parameters",
        [
            ("of full fine-tuning", f"{full:,}"),
            ("of Propulsion", f"{offsets:,} ({offsets / full:.3%})"),
        ],
    )
    _section(
        table,
        "Full fine-tuning and Propulsion",
        [
            ("relative distance (0 to 1.414)", f"{distances.relative_distance:.4f}"),
            ("alignment (1 if alike)", f"{distances.alignment:.4f}"),
            ("centered alignment (CKA)", f"{distances.centered_alignment:.4f}"),
            ("alignment off the diagonal", f"{distances.off_diagonal_alignment:.4f}"),
        ],
    )
    if drift is not None:
        _section(
            table,
            "Drift of Propulsion in training",
            [
                ("of its Jacobian, relative", f"{drift.jacobian:.4f}"),
                ("of its kernel, relative", f"{drift.kernel:.4f}"),
            ],
        )
    table.add_row("Seconds", f"{seconds:.1f}")
    return table


def scales_table(rows: Sequence[ScaleStatistics], total: ScaleStatistics, title: str) -> Table:
    """What `propulsion inspect` prints: one row for each of `rows`, and the total."""
    below, above = NEAR_ONE
    table = Table(
        title=_plain(title),
        caption=f"near 1: z within {below} and {above}; s: what outputs are multiplied by",
        title_justify="left",
        caption_justify="left",
        # To fit into 80 columns.
        box=SIMPLE_HEAD,
        show_edge=False,
        padding=0,
    )
    table.add_column("layer", overflow="fold")
    for name in ("values", "mean z", "std z", "min z", "max z", "near 1", "min s", "max s"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*_cells(row))
    table.add_section()
    table.add_row(*_cells(total), style="bold")
    return table


def _section(table: Table, heading: str, rows: Iterable[tuple[str, str]]) -> None:
    table.add_row(f"[bold]{heading}[/bold]", "")
    for name, value in rows:
        table.add_row(f"  {name}", value)
    table.add_section()


def _cells(row: ScaleStatistics) -> tuple[str, ...]:
    layers = f" × {row.modules}" if row.modules > 1 else ""
    return (
        f"{_plain(row.name)}{layers}",
        f"{row.values:,}",
        f"{row.mean:.4f}",
        f"{row.std:.4f}",
        f"{row.minimum:.3f}",
        f"{row.maximum:.3f}",
        f"{row.share_near_one:.1%}",
        f"{row.scale_minimum:.3g}",
        f"{row.scale_maximum:.3g}",
    )


def _plain(text: str) -> str:
    """Text from an adapter's files, robbed of what would steer a terminal or rich."""
    return escape("".join(character if character.isprintable() else "�" for character in text))
