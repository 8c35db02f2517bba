"""`diff`: how two versions differ."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from adapters.commands.options import (
    DEFAULT_STORE,
    CacheOption,
    JsonOption,
    StoreOption,
    opened,
)
from adapters.commands.printing import plain, print_json, print_table

if TYPE_CHECKING:
    from adapters.comparison import ModuleDifference, VersionDifference


def diff(
    a: Annotated[str, typer.Argument(help="A version: name, name@version or name@alias.")],
    b: Annotated[str, typer.Argument(help="Another one.")],
    cache: CacheOption = None,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Compare two versions: configuration, metrics, and the scales of every layer."""
    from dataclasses import asdict

    from adapters.comparison import diff_versions

    found = diff_versions(opened(store, cache), a, b)
    if as_json:
        print_json(asdict(found))
    else:
        _print(found)


def _print(found: "VersionDifference") -> None:
    from rich.table import Table

    for title, pairs in (("configuration", found.config), ("metrics", found.metrics)):
        table = Table(title, found.a, found.b)
        for key, values in pairs.items():
            table.add_row(plain(key), *(_shown(value) for value in values))
        if pairs:
            print_table(table)
        else:
            typer.echo(f"The same {title}." if title == "configuration" else "No metrics.")
    if found.modules is None:
        typer.echo("Their scales are not compared: a low-rank adapter has none.")
        return
    table = Table("layer", "max |s_a - s_b|", "mean |s_a - s_b|", "")
    for module in found.modules:
        table.add_row(plain(module.module), *_cells(module, found))
    print_table(table)


def _cells(module: "ModuleDifference", found: "VersionDifference") -> tuple[str, str, str]:
    if module.max is None or module.mean is None:
        return "", "", "of different sizes"
    only = {"a": f"only in {found.a}", "b": f"only in {found.b}"}
    return f"{module.max:.3g}", f"{module.mean:.3g}", only.get(module.only_in or "", "")


def _shown(value: Any) -> str:
    import json

    return plain("" if value is None else value if isinstance(value, str) else json.dumps(value))
