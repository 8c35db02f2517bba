"""Options and arguments that several commands share, and the store they name."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from adapters.store import AdapterStore

DEFAULT_STORE = "./store"

_REFERENCE = "name, name@version or name@alias."

StoreOption = Annotated[
    str,
    typer.Option(
        "--store",
        envvar="PROPULSION_STORE",
        help="The adapter store: a folder, s3://bucket/prefix or another URL of fsspec.",
    ),
]
CacheOption = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        envvar="PROPULSION_STORE_CACHE",
        help="Folder for copies from a remote store. Default: one below ~/.cache.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]
NameArgument = Annotated[str, typer.Argument(help="Name of the adapter.")]
ReferenceArgument = Annotated[str, typer.Argument(metavar="REF", help=_REFERENCE)]
ReferencesArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[REF]...", help=f"{_REFERENCE} Default: all.")
]
BaseOption = Annotated[
    Path | None,
    typer.Option(help="Folder of the base model; the adapter then fits no other."),
]
AliasesOption = Annotated[
    list[str] | None,
    typer.Option("--alias", help="Alias to move to the new version; repeatable. Default: latest."),
]


def opened(store: str, cache: Path | None = None, cache_bytes: int | None = None) -> "AdapterStore":
    """The store that the options name."""
    from adapters.store import AdapterStore

    return AdapterStore(store, cache=cache, cache_bytes=cache_bytes)


def fingerprint_of(base: Path | None) -> str | None:
    """The fingerprint of the base that an option names, if it names one."""
    if base is None:
        return None
    from adapters.fingerprint import base_fingerprint

    return base_fingerprint(base)
