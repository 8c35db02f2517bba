"""The commands of `propulsion cluster` that put it on machines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def manifests(
    values: Annotated[Path, typer.Argument(help="Values of the Helm chart, in YAML.")],
    release: Annotated[
        str, typer.Option(help="Name of the release, which begins the names of all objects.")
    ] = "propulsion",
    namespace: Annotated[str, typer.Option(help="Namespace they will be applied to.")] = "default",
) -> None:
    """Print the Kubernetes manifests of a training run, a server, or both.

    They are what `helm template` makes of the chart, after a stricter check of the values.
    """
    from cluster.deploy.kubernetes.render import render
    from cluster.deploy.kubernetes.values import load_values

    typer.echo(render(load_values(values), release=release, namespace=namespace), nl=False)
