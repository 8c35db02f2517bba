"""`propulsion params`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from propulsion.analysis.parameters import ParameterCount


def params(
    model: Annotated[
        str, typer.Argument(help="Folder with a config.json, or a hub name; no weights are needed.")
    ],
    preset: Annotated[
        str | None,
        typer.Option(help="attn, mlp, all, embedding, query, key or value; by default attn."),
    ] = None,
    target_modules: Annotated[
        str | None, typer.Option(help="Layers by regex, or `all-linear`, instead of a preset.")
    ] = None,
    num_vectors: Annotated[int, typer.Option(min=1, help="Vectors per layer.")] = 1,
    compare: Annotated[
        bool, typer.Option("--compare", help="Count LoRA, AdaLoRA and (IA)³ as well.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Count the parameters of an adapter from a model's configuration alone."""
    from propulsion.analysis.parameters import compare_methods, count_parameters

    if compare:
        counts = compare_methods(
            model, preset, target_modules=target_modules, num_vectors=num_vectors
        )
    else:
        counts = [
            count_parameters(model, preset, target_modules=target_modules, num_vectors=num_vectors)
        ]
    if as_json:
        typer.echo(json.dumps([asdict(count) for count in counts], indent=1, ensure_ascii=False))
        return
    _print_layers(model, counts[0])
    if compare:
        _print_methods(counts)


def _print_layers(model: str, count: ParameterCount) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"Propulsion on {model}", title_justify="left")
    table.add_column("layer")
    table.add_column("parameters", justify="right")
    for layer, parameters in count.by_layer.items():
        table.add_row(layer, f"{parameters:,}")
    table.add_section()
    table.add_row("total", f"{count.trainable:,}", style="bold")
    Console().print(table)
    typer.echo(f"{count.percent:.4f} % of the base model's {count.base:,} parameters")


def _print_methods(counts: list[ParameterCount]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Beside other methods, as PEFT builds them", title_justify="left")
    table.add_column("method")
    for title in ("parameters", "% of base", "× Propulsion"):
        table.add_column(title, justify="right")
    for count in counts:
        ratio = count.trainable / counts[0].trainable
        table.add_row(count.method, f"{count.trainable:,}", f"{count.percent:.4f}", f"{ratio:.1f}")
    Console().print(table)
