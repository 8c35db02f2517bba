"""`propulsion adapters …`: the adapter store on the command line."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from adapters.store import AdapterStore
    from adapters.version import AdapterVersion

app = typer.Typer(name="adapters", help="Publish, list and verify adapters.", no_args_is_help=True)

StoreOption = Annotated[
    Path, typer.Option("--store", envvar="PROPULSION_STORE", help="Folder of the adapter store.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]

_DEFAULT_STORE = Path("./store")
_REFERENCE = "name, name@version or name@alias."


@app.command("list")
def list_command(store: StoreOption = _DEFAULT_STORE, as_json: JsonOption = False) -> None:
    """List every version of every adapter."""
    opened = _open(store)
    rows = [_summary(opened, version) for version in opened.list()]
    if as_json:
        _print_json(rows)
    elif rows:
        _print_versions(rows)
    else:
        typer.echo(f"No adapters in {store}.")


@app.command()
def show(
    ref: Annotated[str, typer.Argument(metavar="REF", help=_REFERENCE)],
    store: StoreOption = _DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Show one version: where it lies and what its manifest says."""
    opened = _open(store)
    _print_version(_summary(opened, opened.resolve(ref)), as_json)


@app.command()
def publish(
    folder: Annotated[Path, typer.Argument(help="Adapter folder, as PEFT saves it.")],
    name: Annotated[str, typer.Argument(help="Name to publish it under.")],
    base: Annotated[
        Path | None,
        typer.Option(help="Folder of the base model; the adapter then fits no other."),
    ] = None,
    alias: Annotated[
        list[str] | None,
        typer.Option(help="Alias to move to the new version; repeatable. Default: latest."),
    ] = None,
    store: StoreOption = _DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Check an adapter folder and publish it as the next version of NAME."""
    from adapters.fingerprint import base_fingerprint
    from adapters.reference import LATEST

    opened = _open(store)
    version = opened.publish(
        folder,
        name,
        base_fingerprint=None if base is None else base_fingerprint(base),
        aliases=alias or [LATEST],
    )
    _print_version(_summary(opened, version), as_json)


@app.command()
def verify(
    ref: Annotated[
        str | None, typer.Argument(metavar="[REF]", help=f"{_REFERENCE} Default: all.")
    ] = None,
    store: StoreOption = _DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Check files against their checksums, and their tensors; exit 1 if any version is bad."""
    from propulsion.errors import AdapterCorruptError

    opened = _open(store)
    results: list[dict[str, Any]] = []
    for target in opened.list() if ref is None else [ref]:
        reference, error = str(target), None
        try:
            reference = opened.verify(target).reference
        except AdapterCorruptError as corrupt:
            error = str(corrupt)
        results.append({"reference": reference, "ok": error is None, "error": error})
        if not as_json:
            typer.echo(f"ok   {reference}" if error is None else f"BAD  {reference}: {error}")
    if as_json:
        _print_json(results)
    elif not results:
        typer.echo(f"No adapters in {store}.")
    if not all(result["ok"] for result in results):
        raise typer.Exit(1)


@app.command("alias")
def alias_command(
    name: Annotated[str, typer.Argument(help="Name of the adapter.")],
    alias: Annotated[str, typer.Argument(help="Alias to set: prod, latest, ….")],
    version: Annotated[str, typer.Argument(help="Version it is to mean: v1, v2, ….")],
    store: StoreOption = _DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Point an alias at a version, to promote it or to roll back."""
    opened = _open(store)
    opened.set_alias(name, alias, version)
    if as_json:
        _print_json(opened.aliases(name))
    else:
        typer.echo(f"{name}@{alias} is now {name}@{version}.")


def _open(path: Path) -> "AdapterStore":
    from adapters.store import AdapterStore

    return AdapterStore(path)


def _summary(store: "AdapterStore", version: "AdapterVersion") -> dict[str, Any]:
    """One version for both outputs; a damaged one is listed with its error."""
    from propulsion.errors import AdapterCorruptError

    summary: dict[str, Any] = {
        "reference": version.reference,
        "path": str(version.path),
        "aliases": [],
        "manifest": None,
        "error": None,
    }
    try:
        aliases = store.aliases(version.name).items()
        summary["aliases"] = [alias for alias, target in aliases if target == version.version]
        summary["manifest"] = version.manifest.model_dump(mode="json")
    except AdapterCorruptError as error:
        summary["error"] = str(error)
    return summary


def _print_json(value: Any) -> None:
    import json

    typer.echo(json.dumps(value, indent=2))


def _print_versions(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.filesize import decimal
    from rich.table import Table

    table = Table("adapter", "aliases", "type", "parameters", "size", "created", "base")
    for column in table.columns:
        column.overflow = "fold"
    for row in rows:
        reference, aliases = row["reference"], ", ".join(row["aliases"])
        manifest = row["manifest"]
        if manifest is None:
            table.add_row(reference, aliases, "[red]damaged: see verify[/red]")
            continue
        table.add_row(
            reference,
            aliases,
            _plain(manifest["peft_type"]),
            f"{manifest['num_parameters']:,}",
            decimal(sum(file["bytes"] for file in manifest["files"].values())),
            manifest["created"][:16].replace("T", " "),
            _plain(manifest["base_model_name_or_path"] or ""),
        )
    Console().print(table)


def _print_version(summary: dict[str, Any], as_json: bool) -> None:
    if as_json:
        _print_json(summary)
        return
    import json

    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    rows = {key: summary[key] for key in ("reference", "path", "aliases", "error")}
    for key, value in (rows | (summary["manifest"] or {})).items():
        if value:
            text = value if isinstance(value, str) else json.dumps(value, indent=2)
            table.add_row(key, _plain(text))
    Console().print(table)


def _plain(text: str) -> str:
    """Text from an adapter's files, robbed of what would steer a terminal or rich."""
    from rich.markup import escape

    return escape("".join(c if c.isprintable() or c == "\n" else "�" for c in text))
