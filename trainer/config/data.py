"""The section `data`: which records, how they are written, and what a prompt looks like."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from trainer.config.formats import DatasetFormat, RecordFormat
from trainer.config.section import Section


class DataSection(Section):
    """Where the records are and what a prompt looks like."""

    train: Path = Field(description="Training file; for a data set also a folder or a hub name.")
    test: Path = Field(description="What evaluation uses; never trained on.")
    records: RecordFormat = Field(description="How both are written.")
    prompt: str | None = Field(
        None,
        description=(
            "Prompt around a record's text; must hold {text} once, and may hold {text_pair}. The "
            "target follows. If not given, the named data set's, else `{text}` and a line break."
        ),
    )
    chat_template: bool = Field(
        False, description="Put the prompt through the tokenizer's chat template."
    )
    max_length: int = Field(
        256, ge=8, description="Tokens of prompt and target; a longer prompt loses its start."
    )
    train_limit: int | None = Field(None, ge=1, description="Use the first N training records.")
    test_limit: int | None = Field(None, ge=1, description="Use the first N test records.")

    @model_validator(mode="after")
    def _prompt_holds_text(self) -> DataSection:
        if self.prompt is not None and self.prompt.count("{text}") != 1:
            raise ValueError("`prompt` must hold {text} exactly once")
        if self.prompt is not None and self.prompt.count("{text_pair}") > 1:
            raise ValueError("`prompt` may hold {text_pair} only once")
        return self

    def resolve_paths(self, folder: Path) -> None:
        """Make the paths absolute, as seen from `folder`; a data set's hub name stays as it is."""
        self.train = self._resolved(self.train, folder)
        self.test = self._resolved(self.test, folder)

    def _resolved(self, path: Path, folder: Path) -> Path:
        is_hub_name = (
            isinstance(self.records, DatasetFormat)
            and len(path.parts) <= 2
            and path.parts[:1] != ("..",)
            and not (folder / path).exists()
        )
        return path if is_hub_name else folder / path
