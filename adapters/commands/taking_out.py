"""`export` and `merge`: adapters out of a store, alone or in their base."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from adapters.commands.options import (
    DEFAULT_STORE,
    CacheOption,
    JsonOption,
    ReferenceArgument,
    StoreOption,
    opened,
)
from adapters.commands.printing import print_json


class ExportFormat(StrEnum):
    """What `export` writes."""

    STORED = "stored"
    PROPULSION = "propulsion"
    IA3 = "ia3"


def export(
    ref: ReferenceArgument,
    folder: Annotated[Path, typer.Argument(help="New folder.")],
    form: Annotated[
        ExportFormat,
        typer.Option("--format", help="As it is stored, or converted from the one to the other."),
    ] = ExportFormat.STORED,
    cache: CacheOption = None,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Write a version to a plain folder, which PEFT loads."""
    from adapters.exporting import export_version

    version = export_version(opened(store, cache), ref, folder, form.value)
    _report(version.reference, folder, as_json)


def merge(
    ref: ReferenceArgument,
    base: Annotated[Path, typer.Option(help="Folder of the base model.")],
    out: Annotated[Path, typer.Option(help="New folder for the merged model.")],
    cache: CacheOption = None,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Fold a version into its base model and save the result, which needs no adapter."""
    import sys
    from contextlib import redirect_stdout

    from rich.console import Console

    from adapters.merging import merge_version

    status = Console(stderr=True, quiet=as_json).status(f"Merging {ref} into {base}")
    # Libraries that load models log to stdout, which is for the result.
    with status, redirect_stdout(sys.stderr):
        version = merge_version(opened(store, cache), ref, base, out)
    _report(version.reference, out, as_json)


def _report(reference: str, folder: Path, as_json: bool) -> None:
    if as_json:
        print_json({"reference": reference, "folder": str(folder)})
    else:
        typer.echo(f"{reference} is in {folder}.")
