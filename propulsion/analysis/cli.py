"""`propulsion ntk` and `propulsion inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def ntk(
    base: Annotated[str, typer.Option(help="Base model: a folder or a hub name.")],
    data: Annotated[
        Path,
        typer.Option(
            help="Samples: text with one a line, JSON lines (.jsonl) with a `text` field, or .tsv "
            "with a header."
        ),
    ],
    column: Annotated[
        str | None, typer.Option(help="Column of a .tsv, or field of JSON lines, with the text.")
    ] = None,
    samples: Annotated[
        int, typer.Option(min=2, help="Samples to draw; the kernels have as many rows.")
    ] = 16,
    max_length: Annotated[
        int, typer.Option(min=2, help="Tokens of a sample; a longer one is cut.")
    ] = 64,
    adapter: Annotated[
        Path | None,
        typer.Option(help="Folder of a trained adapter; without one there is no drift to draw."),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="Layers that a fresh adapter scales. Not with --adapter.")
    ] = None,
    degree: Annotated[
        int | None,
        typer.Option(help="Power k of a fresh adapter, by default 15. Not with --adapter."),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="`causal-lm` (the kernel is of the log-odds of a sample's last token) or "
            "`classification` (of the logit of the predicted class). By default what the adapter "
            "or the base says."
        ),
    ] = None,
    num_labels: Annotated[
        int | None,
        typer.Option(min=1, help="Classes of a classification; by default the base's own."),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Of the draw of samples, and of a head that the base lacks.")
    ] = 0,
    max_memory: Annotated[
        float,
        typer.Option(
            min=0.001,
            help="GiB that gradients may take. With less, more passes over the samples are made.",
        ),
    ] = 4.0,
    out: Annotated[
        Path, typer.Option(help="Folder of the results; those of an earlier run are replaced.")
    ] = Path("runs/ntk"),
) -> None:
    """Compare the tangent kernels of full fine-tuning and of Propulsion.

    Writes heat maps (PNG) and every number (ntk.json). With --adapter it also tells how far
    training moved Propulsion's Jacobian and kernel.
    """
    from propulsion.analysis.experiment import NtkOptions, run_ntk

    run_ntk(
        NtkOptions(
            base=base,
            data=data,
            column=column,
            samples=samples,
            max_length=max_length,
            adapter=adapter,
            preset=preset,
            degree=degree,
            task=task,
            num_labels=num_labels,
            seed=seed,
            max_memory=max_memory,
            out=out,
        )
    )


def inspect(
    adapter: Annotated[Path, typer.Argument(metavar="ADAPTER", help="Folder of a saved adapter.")],
    every: Annotated[
        bool, typer.Option("--all", help="A row for each layer, not for each kind of layer.")
    ] = False,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw how z is distributed.")
    ] = None,
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the numbers as JSON.")
    ] = None,
) -> None:
    """Show what a saved adapter does: its z = 1 + δ and effective scales s, by kind of layer."""
    from propulsion.analysis.inspect_adapter import inspect_adapter

    inspect_adapter(adapter, every=every, plot=plot, json_file=json)
