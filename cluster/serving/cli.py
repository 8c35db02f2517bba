"""The command `propulsion cluster serve`, its options made from `ClusterServeConfig`."""

from typing import Any

import typer

from cluster.serving.config import ClusterServeConfig, cluster_serve_config
from serving.cli import declare_options


def serve(**options: Any) -> None:
    """Serve a base model and every adapter of a store from many replicas, on Ray."""
    # What was not said is the configuration's own default.
    given = {name: value for name, value in options.items() if value is not None}
    config = cluster_serve_config(**given)
    # Imported here so that `--help` and a wrong option answer at once.
    from cluster.serving.running import run

    raise typer.Exit(run(config))


declare_options(serve, ClusterServeConfig)
