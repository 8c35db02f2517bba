"""`propulsion cluster`: the commands that need more than one process."""

from __future__ import annotations

import typer

from cluster.training.cli import cancel, logs, queue, status, submit, sweep

app = typer.Typer(
    help="Run training jobs and serving replicas on a Ray cluster.", no_args_is_help=True
)


@app.callback()
def cluster() -> None:
    """Run training jobs and serving replicas on a Ray cluster."""


app.command("submit")(submit)
app.command("status")(status)
app.command("logs")(logs)
app.command("cancel")(cancel)
app.command("queue")(queue)
app.command("sweep")(sweep)
