"""The section `evaluation`."""

from pydantic import Field

from trainer.config.section import Section


class EvaluationSection(Section):
    """How test records are run through the model."""

    batch_size: int = Field(64, ge=1, description="Records per forward or generate call and rank.")
