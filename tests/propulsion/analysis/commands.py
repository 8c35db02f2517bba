"""Runs a command in this process."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer
from typer.testing import CliRunner

from propulsion.errors import PropulsionError


def run(command: Callable[..., None], *args: object) -> str:
    """Standard output; the command's own errors are raised, as `propulsion` catches them."""
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(command)
    result = CliRunner().invoke(app, [*map(str, args)], env={"COLUMNS": "80"})
    if isinstance(result.exception, PropulsionError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def load(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content
