"""The section `batching`: how the records of a step become forward passes."""

from __future__ import annotations

from pydantic import Field

from trainer.config.section import Section


class BatchingSection(Section):
    """How the records of a step, of all its adapters, are divided into forward passes."""

    micro_batch_size: int | None = Field(
        None, ge=1, description="Rows per forward pass and rank; all at once if not given."
    )
    packing: bool = Field(
        False,
        description=(
            "Put several short records into one row of at most data.max_length tokens, each blind "
            "to the others. For causal models that take position ids."
        ),
    )
