"""`alias` and `split`: where the moving names of an adapter lead."""

import math
from typing import Annotated

import typer

from adapters.commands.options import (
    DEFAULT_STORE,
    JsonOption,
    NameArgument,
    StoreOption,
    opened,
)
from adapters.commands.printing import print_json

_DeleteOption = Annotated[bool, typer.Option("--delete", help="Remove it.")]


def alias_command(
    name: NameArgument,
    alias: Annotated[
        str | None, typer.Argument(help="Alias to set: prod, latest, …. Default: list them.")
    ] = None,
    version: Annotated[str | None, typer.Argument(help="Version it is to mean: v1, v2, ….")] = None,
    delete: _DeleteOption = False,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Point an alias at a version, to promote it or to roll back; its split ends."""
    found = opened(store)
    if alias is not None:
        if delete == (version is not None):
            raise typer.BadParameter("give a version for the alias, or --delete.")
        if version is None:
            found.delete_alias(name, alias)
        else:
            found.set_alias(name, alias, version)
    elif delete:
        raise typer.BadParameter("name the alias to delete.")
    if as_json:
        print_json(found.aliases(name))
    elif version is not None:
        typer.echo(f"{name}@{alias} is now {name}@{version}.")
    elif delete:
        typer.echo(f"{name}@{alias} is no more.")
    else:
        for known, target in found.aliases(name).items():
            typer.echo(f"{name}@{known}  {name}@{target}")


def split_command(
    name: NameArgument,
    alias: Annotated[
        str | None, typer.Argument(help="Alias whose requests are split. Default: list them.")
    ] = None,
    weights: Annotated[
        list[str] | None, typer.Argument(metavar="[VERSION=WEIGHT]...", help="As v1=0.9 v2=0.1.")
    ] = None,
    delete: _DeleteOption = False,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Split an alias between versions, which a server draws from for each request (A/B)."""
    found = opened(store)
    if alias is not None:
        if delete == bool(weights):
            raise typer.BadParameter("give weights for the split, as v1=0.9 v2=0.1, or --delete.")
        if delete:
            found.delete_split(name, alias)
        else:
            found.set_split(name, alias, _parsed(weights or []))
    elif delete:
        raise typer.BadParameter("name the alias whose split is to end.")
    splits = found.splits(name)
    if as_json:
        print_json(splits)
    elif delete:
        typer.echo(f"{name}@{alias} is no longer split.")
    else:
        for known, shares in splits.items():
            if alias in (None, known):
                text = "  ".join(f"{version} {share:.4g}" for version, share in shares.items())
                typer.echo(f"{name}@{known}  {text}")


def _parsed(weights: list[str]) -> dict[str, float]:
    parsed: dict[str, float] = {}
    for text in weights:
        version, separator, weight = text.partition("=")
        try:
            value = float(weight)
        except ValueError:
            value = math.nan
        if not separator or math.isnan(value) or version in parsed:
            raise typer.BadParameter(f"{text!r} is not VERSION=WEIGHT of a new version, as v1=0.9.")
        parsed[version] = value
    return parsed
