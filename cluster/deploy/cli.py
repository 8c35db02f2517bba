"""The commands of `propulsion cluster` that put it on machines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

HostsFile = Annotated[Path, typer.Argument(help="File of the hosts, in YAML.", metavar="HOSTS")]


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


def up(
    hosts: HostsFile,
    restart: Annotated[
        bool, typer.Option("--restart", help="Start Ray again where it runs; jobs end.")
    ] = False,
    show: Annotated[
        bool, typer.Option("--show", help="Print the launcher's configuration and do nothing.")
    ] = False,
) -> None:
    """Start a Ray cluster on hosts of your own, or bring new hosts into one that runs."""
    from cluster.deploy.hosts.config import load_hosts
    from cluster.deploy.hosts.launcher import start_cluster
    from cluster.deploy.hosts.launcher_config import launcher_config

    config = load_hosts(hosts)
    if show:
        import yaml

        typer.echo(yaml.safe_dump(launcher_config(config), sort_keys=False), nl=False)
        return
    started = start_cluster(config, restart=restart)
    typer.echo(f"{config.name}: {'started' if started else 'runs already'}, head {config.head}")


def down(hosts: HostsFile) -> None:
    """Stop Ray on all hosts of a cluster, and with it every job and server."""
    from cluster.deploy.hosts.config import load_hosts
    from cluster.deploy.hosts.launcher import stop_cluster

    config = load_hosts(hosts)
    stop_cluster(config)
    typer.echo(f"{config.name}: stopped on {len(config.hosts)} host(s)")


def execute(
    hosts: HostsFile,
    command: Annotated[
        list[str], typer.Argument(help="Command and its arguments, after `--`.", metavar="-- CMD")
    ],
) -> None:
    """Run a command on a cluster's head, in its environment."""
    import shlex

    from cluster.deploy.hosts.config import load_hosts
    from cluster.deploy.hosts.launcher import run_on_head

    raise typer.Exit(run_on_head(load_hosts(hosts), shlex.join(command)))
