"""`propulsion cluster`: the commands that need more than one process."""

from __future__ import annotations

import typer

from cluster.capacity.cli import measure, simulate
from cluster.deploy.cli import down, execute, manifests, up
from cluster.monitoring.cli import monitor
from cluster.serving.cli import serve
from cluster.training.cli import cancel, logs, queue, status, submit, sweep

app = typer.Typer(
    help="Run training jobs and serving replicas on a Ray cluster.", no_args_is_help=True
)


@app.callback()
def cluster() -> None:
    """Run training jobs and serving replicas on a Ray cluster."""


for name, command in {
    "submit": submit,
    "status": status,
    "logs": logs,
    "cancel": cancel,
    "queue": queue,
    "sweep": sweep,
    "serve": serve,
    "monitor": monitor,
    "measure": measure,
    "simulate": simulate,
    "manifests": manifests,
    "up": up,
    "down": down,
    "exec": execute,
}.items():
    app.command(name)(command)
