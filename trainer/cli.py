"""`propulsion train` and `propulsion eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RunFile = Annotated[Path, typer.Argument(metavar="RUN.yaml", help="The run file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Replace a setting, as training.steps=10."),
]


def train(
    run_file: RunFile,
    overrides: Overrides = None,
    ray: Annotated[
        bool, typer.Option("--ray", help="Run through Ray Train instead of in this process.")
    ] = False,
    workers: Annotated[int, typer.Option(min=1, help="Ray workers (with --ray).")] = 1,
    overwrite: Annotated[
        bool, typer.Option(help="Delete what an earlier run left in its output_dir.")
    ] = False,
) -> None:
    """Train, evaluate and publish the adapter that a run file describes.

    A run that was cut off continues from its last checkpoint. Without --ray it uses the ranks of
    torchrun, or this process alone.
    """
    from trainer.config import load_run
    from trainer.report import print_result

    run = load_run(run_file, overrides)
    if ray:
        from cluster.ray_train import train_on_ray

        result = train_on_ray(run, workers, overwrite=overwrite)
    else:
        from trainer.loop import train as train_here

        try:
            result = train_here(run, overwrite=overwrite)
        except KeyboardInterrupt:
            typer.echo("interrupted; the same command continues from the last checkpoint", err=True)
            raise typer.Exit(130) from None
    print_result(result)


def evaluate(
    run_file: RunFile,
    adapter: Annotated[
        str | None,
        typer.Option(
            help="A folder, or a reference in the run's store; the bare base if not given."
        ),
    ] = None,
    predictions: Annotated[
        Path | None, typer.Option(help="Write prompt, generated text and answer as JSON lines.")
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Accuracy of the base model, or of an adapter, on a run's test records."""
    from trainer.config import load_run
    from trainer.evaluate_adapter import evaluate_adapter

    result = evaluate_adapter(load_run(run_file, overrides), adapter, predictions)
    typer.echo(
        f"{adapter or 'base'}: accuracy {result.accuracy:.1%} on {result.num_test} records "
        f"(most frequent answer {result.majority_accuracy:.1%})"
    )
