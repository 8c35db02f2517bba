"""`gc`: old versions that nothing names are removed."""

from typing import Annotated

import typer

from adapters.commands.options import DEFAULT_STORE, JsonOption, StoreOption, opened
from adapters.commands.printing import print_json


def gc(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Adapters. Default: all.")
    ] = None,
    keep_last: Annotated[
        int, typer.Option(min=1, help="Newest versions of each adapter that stay in any case.")
    ] = 10,
    min_age_days: Annotated[
        float, typer.Option(min=0, help="How old a version must be to go, in days.")
    ] = 1.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Remove versions that no alias or split names, and what interrupted publishes left."""
    from datetime import timedelta

    from rich.filesize import decimal

    report = opened(store).gc(
        keep_last=keep_last,
        min_age=timedelta(days=min_age_days),
        dry_run=dry_run,
        names=names or None,
    )
    if as_json:
        rows = [{"what": r.what, "bytes": r.bytes} for r in report.removed]
        print_json({"dry_run": report.dry_run, "bytes": report.num_bytes, "removed": rows})
        return
    for removed in report.removed:
        typer.echo(f"{removed.what}  {decimal(removed.bytes)}")
    verb = "Would remove" if report.dry_run else "Removed"
    typer.echo(f"{verb} {len(report.removed)}, {decimal(report.num_bytes)} in all.")
