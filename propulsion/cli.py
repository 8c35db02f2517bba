"""The command `propulsion`. Each package hangs its commands here by an entry point."""

from __future__ import annotations

import logging
import sys
from importlib.metadata import entry_points

import typer

from propulsion.errors import PropulsionError
from propulsion.version import __version__

COMMANDS = "propulsion.commands"
"""Entry point group: a `typer.Typer` becomes a group of commands, a function a command."""


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"propulsion {__version__}")
        raise typer.Exit


def build_app() -> typer.Typer:
    """The command line with the commands of every installed package."""
    app = typer.Typer(
        name="propulsion",
        help="Train and serve thousands of Propulsion adapters on one frozen language model.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )

    @app.callback()
    def root(
        version: bool = typer.Option(
            False, "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ) -> None:
        pass

    for entry in sorted(entry_points(group=COMMANDS), key=lambda entry: entry.name):
        command = entry.load()
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=entry.name)
        else:
            app.command(entry.name)(command)
    return app


def main() -> None:
    """Run the command line; an error that a user caused is printed without a traceback."""
    # It warns on import of a kernel that it would rather have.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    try:
        build_app()()
    except PropulsionError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
