"""The section `publish`."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from trainer.config.gate import GateSection
from trainer.config.section import Section


class PublishSection(Section):
    """Where the finished adapter goes."""

    store: Annotated[str, BeforeValidator(str)] = Field(
        description="Adapter store: a folder, s3://bucket/prefix or another URL."
    )
    name: str | None = Field(None, description="Name in the store; the adapter's if not given.")
    aliases: list[str] = Field(
        ["latest"], description="Aliases that then point to it, and that serving follows."
    )
    gate: GateSection | None = Field(
        None,
        description=(
            "What its score must meet. One that does not is published all the same, but no alias "
            "moves to it."
        ),
    )
    lineage: dict[str, str] = Field(
        {}, description="Kept in its manifest, as `commit: 1a2b3c`; a queue adds run and job."
    )
