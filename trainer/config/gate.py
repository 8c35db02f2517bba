"""The section `publish.gate`: what an adapter has to reach before aliases move to it."""

from __future__ import annotations

from pydantic import Field, model_validator

from trainer.config.section import Section


class GateSection(Section):
    """Conditions on the task's score on the test records; all that are given must hold."""

    at_least: float | None = Field(None, description="Lowest score.")
    above_base: float | None = Field(
        None, description="Lowest gain over the bare base's score; not for tasks with a head."
    )
    no_worse_than: str | None = Field(
        None,
        description=(
            "Alias whose present version's score must be reached; holds where the alias has none."
        ),
    )

    @model_validator(mode="after")
    def _asks_for_something(self) -> GateSection:
        if (self.at_least, self.above_base, self.no_worse_than) == (None, None, None):
            raise ValueError("give at_least, above_base or no_worse_than")
        return self
