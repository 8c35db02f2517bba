"""The section `checkpoints`."""

from pydantic import Field

from trainer.config.section import Section


class CheckpointSection(Section):
    """When a run is saved so that it can go on after it was cut off."""

    every: int = Field(100, ge=1, description="Steps between checkpoints.")
    keep: int = Field(2, ge=1, description="How many are kept.")
    copy_to: str | None = Field(
        None,
        description="s3://bucket/prefix or another URL that each is also copied to; a run whose "
        "output_dir is lost goes on from there.",
    )
