"""What every part of a run file is."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of the run file; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid")
