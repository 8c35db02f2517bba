"""`propulsion cluster`: the commands that need more than one process."""

from __future__ import annotations

import typer

from cluster.capacity.cli import measure, simulate
from cluster.serving.cli import serve

app = typer.Typer(
    help="Run training jobs and serving replicas on a Ray cluster.", no_args_is_help=True
)


@app.callback()
def cluster() -> None:
    """Run training jobs and serving replicas on a Ray cluster."""


app.command("measure")(measure)
app.command("simulate")(simulate)
app.command("serve")(serve)
