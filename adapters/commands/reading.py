"""`list`, `show`, `verify`, `pull`: what a store holds, and whether it is whole."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from adapters.commands.options import (
    DEFAULT_STORE,
    CacheOption,
    JsonOption,
    ReferenceArgument,
    ReferencesArgument,
    StoreOption,
    opened,
)
from adapters.commands.printing import (
    print_json,
    print_version,
    print_versions,
    summary,
    with_progress,
)

if TYPE_CHECKING:
    from adapters.version import AdapterVersion


def list_command(store: StoreOption = DEFAULT_STORE, as_json: JsonOption = False) -> None:
    """List every version of every adapter."""
    found = opened(store)
    versions = with_progress(found.list(), "Reading", str, quiet=as_json)
    rows = [summary(found, version) for version in versions]
    if as_json:
        print_json(rows)
    elif rows:
        print_versions(rows)
    else:
        typer.echo(f"No adapters in {found.location}.")


def show(
    ref: ReferenceArgument, store: StoreOption = DEFAULT_STORE, as_json: JsonOption = False
) -> None:
    """Show one version: where it lies and what its manifest says."""
    found = opened(store)
    print_version(summary(found, found.resolve(ref)), as_json)


def verify(
    ref: ReferencesArgument = None,
    cache: CacheOption = None,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Check files against their checksums, and their tensors; exit 1 if any version is bad."""
    from propulsion.errors import AdapterCorruptError

    found = opened(store, cache)
    results: list[dict[str, Any]] = []
    targets: list[str | AdapterVersion] = [*ref] if ref else [*found.list()]
    for target in with_progress(targets, "Verifying", str, quiet=as_json):
        reference, error = str(target), None
        try:
            reference = found.verify(target).reference
        except AdapterCorruptError as corrupt:
            error = str(corrupt)
        results.append({"reference": reference, "ok": error is None, "error": error})
        if not as_json:
            typer.echo(f"ok   {reference}" if error is None else f"BAD  {reference}: {error}")
    if as_json:
        print_json(results)
    elif not results:
        typer.echo(f"No adapters in {found.location}.")
    if not all(result["ok"] for result in results):
        raise typer.Exit(1)


def pull(
    ref: ReferencesArgument = None,
    cache: CacheOption = None,
    cache_bytes: Annotated[
        int | None,
        typer.Option(
            min=1, help="Size to keep the cache to; what was used least recently is dropped."
        ),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Copy versions of a remote store into the cache, and print where they lie."""
    found = opened(store, cache, cache_bytes)
    targets: list[str | AdapterVersion] = [*ref] if ref else [*found.list()]
    rows = []
    for target in with_progress(targets, "Pulling", str, quiet=as_json):
        version = found.pull(target)
        rows.append({"reference": version.reference, "path": str(version.path)})
        if not as_json:
            typer.echo(f"{version.reference}  {version.path}")
    if as_json:
        print_json(rows)
    elif not rows:
        typer.echo(f"No adapters in {found.location}.")
