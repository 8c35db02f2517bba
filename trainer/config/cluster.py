"""The section `cluster`: on how much of a Ray cluster a run is trained, and for whom."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from trainer.config.section import Section

Workers = Annotated[int, Field(ge=1)]


class ClusterSection(Section):
    """What a run asks of a Ray cluster; `propulsion train` without --ray does not look at it."""

    workers: Workers | tuple[Workers, Workers] = Field(
        1,
        description=(
            "Ranks. `[2, 8]` takes as many as there is room for, and goes on with fewer or more "
            "from the last checkpoint when nodes go or come."
        ),
    )
    gpus: bool | None = Field(
        None, description="Whether each rank takes a GPU; if not given, where Ray has enough."
    )
    cpus_per_worker: float = Field(1.0, ge=0, description="CPUs that Ray reserves for each rank.")
    placement: Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"] = Field(
        "PACK", description="Ray's placement strategy: ranks on few nodes, or on many."
    )
    max_failures: int = Field(
        3,
        ge=-1,
        description=(
            "How often a lost rank or node restarts the run from its last checkpoint; -1 for any "
            "number."
        ),
    )
    resize_seconds: float = Field(
        60.0, gt=0, description="With a range of ranks: how often a run looks for more room."
    )
    team: str = Field("default", description="Whose quota the run counts against in a queue.")
    priority: int = Field(0, description="In a queue, a run of a higher number goes first.")
    pack: bool = Field(
        True,
        description="Whether a queue may train it together with others that share its settings.",
    )

    @model_validator(mode="after")
    def _range_is_in_order(self) -> ClusterSection:
        if self.min_workers > self.max_workers:
            raise ValueError("workers: the smaller number comes first, as [2, 8]")
        return self

    @property
    def min_workers(self) -> int:
        """Ranks without which it does not start."""
        return self.workers if isinstance(self.workers, int) else self.workers[0]

    @property
    def max_workers(self) -> int:
        """Ranks that it takes where it can."""
        return self.workers if isinstance(self.workers, int) else self.workers[1]
