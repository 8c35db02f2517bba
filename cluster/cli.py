"""`propulsion cluster`: the commands that need more than one process."""

from __future__ import annotations

import typer

from cluster.deploy.cli import down, execute, manifests, up

app = typer.Typer(
    help="Run training jobs and serving replicas on a Ray cluster.", no_args_is_help=True
)


@app.callback()
def cluster() -> None:
    """Run training jobs and serving replicas on a Ray cluster."""


app.command("manifests")(manifests)
app.command("up")(up)
app.command("down")(down)
app.command("exec")(execute)
