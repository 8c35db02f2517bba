"""`propulsion train`, `propulsion queue` and `propulsion eval`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from trainer.config import JobConfig, RunConfig

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
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Ray workers (with --ray); the run file's if not given."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option(help="Delete what an earlier run left in its output_dir.")
    ] = False,
) -> None:
    """Train, evaluate and publish the adapters that a run file describes.

    A run that was cut off continues from its last checkpoint. Without --ray it uses the ranks of
    torchrun, or this process alone.
    """
    from trainer.config import load_run
    from trainer.report import print_result

    run = load_run(run_file, overrides)
    if ray:
        from cluster.training.ray_train import train_on_ray

        result = train_on_ray(run, workers, overwrite=overwrite)
    else:
        from trainer.loop import train as train_here

        try:
            result = train_here(run, overwrite=overwrite)
        except KeyboardInterrupt:
            typer.echo("interrupted; the same command continues from the last checkpoint", err=True)
            raise typer.Exit(130) from None
    print_result(result)


def queue(
    run_file: RunFile,
    adapter_file: Annotated[
        Path,
        typer.Argument(
            metavar="ADAPTER.yaml",
            help="`name`, `adapter`, `data`, `training` and `publish` of the new adapter.",
        ),
    ],
    overrides: Overrides = None,
) -> None:
    """Let another adapter join a run, while it goes on or after it has ended.

    A running job takes it in after its next step. One that has ended trains it when
    `propulsion train` is given again.
    """
    from trainer.config import load_job, load_run
    from trainer.joining import queue_job

    run = load_run(run_file, overrides)
    job = load_job(adapter_file, run.seed)
    queue_job(run, job)
    typer.echo(f"{job.name} joins {run.name}")


def evaluate(
    run_file: RunFile,
    adapter: Annotated[
        str | None,
        typer.Option(help="A folder, or a reference in the store; the bare base if not given."),
    ] = None,
    data_of: Annotated[
        str | None,
        typer.Option(help="Whose test records, where the run has several adapters."),
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Ask a running server instead of loading the base."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="What the server calls the adapter or the base (with --server)."),
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(envvar="PROPULSION_API_KEY", help="Of the server, if it wants one."),
    ] = None,
    predictions: Annotated[
        Path | None, typer.Option(help="Write records and predictions as JSON lines.")
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Scores of the base model, or of an adapter, on a run's test records."""
    from trainer.config import load_run
    from trainer.evaluate_adapter import evaluate_adapter, evaluate_server

    run = load_run(run_file, overrides)
    job = _job(run, data_of)
    if server is not None:
        if model is None or adapter is not None:
            raise typer.BadParameter("--server wants --model, and no --adapter")
        scores = evaluate_server(run, job, server, model, api_key=api_key, predictions=predictions)
    else:
        scores = evaluate_adapter(run, job, adapter, predictions)
    values = ", ".join(f"{name} {value:.3f}" for name, value in scores.values.items())
    typer.echo(f"{model or adapter or 'base'}: {values} on {scores.num_records} records")


def _job(run: RunConfig, name: str | None) -> JobConfig:
    from propulsion.errors import ConfigError

    if name is None and len(run.jobs) == 1:
        return run.jobs[0]
    for job in run.jobs:
        if job.name == name:
            return job
    names = ", ".join(job.name for job in run.jobs)
    raise ConfigError(f"--data-of names one of the run's adapters: {names}")
