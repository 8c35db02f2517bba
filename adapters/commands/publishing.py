"""`publish` and `import`: new versions."""

from pathlib import Path
from typing import Annotated

import typer

from adapters.commands.options import (
    DEFAULT_STORE,
    AliasesOption,
    BaseOption,
    JsonOption,
    StoreOption,
    fingerprint_of,
    opened,
)
from adapters.commands.printing import print_version, summary

_NewName = Annotated[str, typer.Argument(help="Name to publish it under.")]


def publish(
    folder: Annotated[Path, typer.Argument(help="Adapter folder, as PEFT saves it.")],
    name: _NewName,
    base: BaseOption = None,
    alias: AliasesOption = None,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Check an adapter folder and publish it as the next version of NAME."""
    from adapters.reference import LATEST

    found = opened(store)
    version = found.publish(
        folder, name, base_fingerprint=fingerprint_of(base), aliases=alias or [LATEST]
    )
    print_version(summary(found, version), as_json)


def import_command(
    source: Annotated[
        str, typer.Argument(help="Folder of a PEFT adapter, or its name on the hub: owner/name.")
    ],
    name: _NewName,
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit on the hub. Default: main.")
    ] = None,
    base: BaseOption = None,
    alias: AliasesOption = None,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Publish an (IA)³, LoRA or Propulsion adapter of PEFT as the next version of NAME.

    (IA)³ becomes the Propulsion adapter that does the same; the others are kept as they are.
    """
    from adapters.importing import import_adapter
    from adapters.reference import LATEST

    found = opened(store)
    version = import_adapter(
        found,
        source,
        name,
        revision=revision,
        base_fingerprint=fingerprint_of(base),
        aliases=alias or [LATEST],
    )
    print_version(summary(found, version), as_json)
