"""The section `publish`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from trainer.config.section import Section


class PublishSection(Section):
    """Where the finished adapter goes."""

    store: Path = Field(description="Folder of the adapter store.")
    name: str | None = Field(None, description="Name in the store; the adapter's if not given.")
    aliases: list[str] = Field(["latest"], description="Aliases that then point to it.")
