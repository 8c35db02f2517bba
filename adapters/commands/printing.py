"""What the commands print: one version, many, or JSON."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import typer

if TYPE_CHECKING:
    from adapters.store import AdapterStore
    from adapters.version import AdapterVersion

T = TypeVar("T")


def summary(store: "AdapterStore", version: "AdapterVersion") -> dict[str, Any]:
    """One version for both outputs; a damaged one is listed with its error."""
    from propulsion.errors import AdapterCorruptError, AdapterNotFoundError

    found: dict[str, Any] = {
        "reference": version.reference,
        "location": store.where(version),
        "path": str(version.path),
        "aliases": [],
        "manifest": None,
        "error": None,
    }
    try:
        aliases = store.aliases(version.name).items()
        found["aliases"] = [alias for alias, target in aliases if target == version.version]
        found["manifest"] = version.manifest.model_dump(mode="json")
    except (AdapterCorruptError, AdapterNotFoundError) as error:
        found["error"] = str(error)
    return found


def print_json(value: Any) -> None:
    """Print a value as indented JSON."""
    import json

    typer.echo(json.dumps(value, indent=2))


def print_version(found: Mapping[str, Any], as_json: bool) -> None:
    """Print a `summary`."""
    if as_json:
        print_json(found)
        return
    import json

    from rich.table import Table

    table = Table(show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    rows = {key: found[key] for key in ("reference", "location", "aliases", "error")}
    if found["path"] != found["location"]:
        rows["cache"] = found["path"]
    for key, value in (rows | (found["manifest"] or {})).items():
        if value:
            text = value if isinstance(value, str) else json.dumps(value, indent=2)
            table.add_row(key, plain(text))
    print_table(table)


def print_versions(rows: Iterable[Mapping[str, Any]]) -> None:
    """Print a table of `summary` rows."""
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
            plain(manifest["peft_type"]),
            f"{manifest['num_parameters']:,}",
            decimal(sum(file["bytes"] for file in manifest["files"].values())),
            manifest["created"][:16].replace("T", " "),
            plain(manifest["base_model_name_or_path"] or ""),
        )
    print_table(table)


def print_table(table: Any) -> None:
    """Print a table of rich."""
    from rich.console import Console

    Console().print(table)


def with_progress(
    items: list[T], what: str, as_text: Callable[[T], str], *, quiet: bool
) -> Iterator[T]:
    """The items, with a bar on a terminal's stderr while they are worked on."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=quiet or not console.is_terminal) as bar:
        task = bar.add_task(what, total=len(items))
        for item in items:
            bar.update(task, description=f"{what} {plain(as_text(item))}")
            yield item
            bar.advance(task)


def plain(text: str) -> str:
    """Text from an adapter's files, robbed of what would steer a terminal or rich."""
    from rich.markup import escape

    return escape("".join(c if c.isprintable() or c == "\n" else "�" for c in text))
