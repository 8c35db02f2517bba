"""`propulsion keys …`: the API keys of a server."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from serving.security.keys_file import KeyRecord
from serving.security.principal import Role

app = typer.Typer(name="keys", help="Make, list and revoke API keys.", no_args_is_help=True)

FileOption = Annotated[
    Path, typer.Option("--file", envvar="PROPULSION_KEYS_FILE", help="The keys file.")
]
_FIELDS = KeyRecord.model_fields


@app.command()
def create(
    file: FileOption,
    id: Annotated[str, typer.Option("--id", help=_FIELDS["id"].description)],
    tenant: Annotated[str, typer.Option(help=_FIELDS["tenant"].description)],
    role: Annotated[Role, typer.Option(help=_FIELDS["role"].description)] = "inference",
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            help="Shell pattern of adapter names the key may use; repeatable. An inference key "
            "may use none by default, an admin key all."
        ),
    ] = None,
    base: Annotated[
        bool, typer.Option("--base/--no-base", help=_FIELDS["base"].description)
    ] = True,
    requests_per_minute: Annotated[
        int | None, typer.Option(help=_FIELDS["requests_per_minute"].description)
    ] = None,
    tokens_per_minute: Annotated[
        int | None, typer.Option(help=_FIELDS["tokens_per_minute"].description)
    ] = None,
    tokens_per_day: Annotated[
        int | None, typer.Option(help=_FIELDS["tokens_per_day"].description)
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option(help="When the key ends: 2027-01-31T00:00:00Z, or from now as 90d."),
    ] = None,
) -> None:
    """Make a key and print it, this once; the file keeps its digest alone."""
    from serving.security.editing import add_key

    if adapter is None:
        adapter = ["*"] if role == "admin" else []
    key = add_key(
        file,
        id=id,
        tenant=tenant,
        role=role,
        adapters=tuple(adapter),
        base=base,
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        tokens_per_day=tokens_per_day,
        expires=_end(expires),
    )
    typer.echo(f"Key {id} of tenant {tenant}, shown this once:", err=True)
    typer.echo(key)


@app.command("list")
def list_command(
    file: FileOption,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
) -> None:
    """List the keys: whose they are and what they may do, never what they are."""
    from serving.security.keys_file import read_keys_file

    records = read_keys_file(file)[0]
    if as_json:
        import json

        rows = [record.model_dump(mode="json", exclude={"sha256"}) for record in records]
        typer.echo(json.dumps(rows, indent=2))
    else:
        _print(records)


@app.command()
def revoke(
    file: FileOption, id: Annotated[str, typer.Argument(metavar="ID", help="Which key.")]
) -> None:
    """Take a key out of the file; a running server refuses it within a second."""
    from serving.security.editing import remove_key

    remove_key(file, id)
    typer.echo(f"revoked {id}")


def _end(text: str | None) -> str | datetime | None:
    match = re.fullmatch(r"([1-9][0-9]{0,4})d", text or "")
    return datetime.now(UTC) + timedelta(days=int(match.group(1))) if match else text


def _print(records: tuple[KeyRecord, ...]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("id", "tenant", "role", "adapters", "base", "limits", "expires")
    for record in records:
        limits = {
            "requests/min": record.requests_per_minute,
            "tokens/min": record.tokens_per_minute,
            "tokens/day": record.tokens_per_day,
        }
        shown = ", ".join(f"{limit} {unit}" for unit, limit in limits.items() if limit)
        table.add_row(
            record.id,
            record.tenant,
            record.role,
            ", ".join(record.adapters),
            "yes" if record.base else "no",
            shown,
            _expiry(record.expires),
        )
    Console().print(table)


def _expiry(expires: datetime | None) -> str:
    if expires is None:
        return "never"
    over = " (expired)" if expires <= datetime.now(UTC) else ""
    return expires.isoformat(timespec="seconds") + over
