"""Where a run and each of its adapters stand."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from trainer.result import AdapterResult

Status = Literal["training", "finished", "stopped", "diverged"]


@dataclass(frozen=True)
class JobProgress:
    """Where one adapter stands."""

    step: int = 0
    tokens: int = 0
    status: Status = "training"
    base_scores: dict[str, float] | None = None
    """Of the bare base; None before it was evaluated, empty where that says nothing."""
    best_score: float | None = None
    best_step: int | None = None
    worse_evaluations: int = 0
    """Since the best one."""
    result: AdapterResult | None = None
    """Once it has left the run."""

    @property
    def is_training(self) -> bool:
        return self.status == "training"


@dataclass(frozen=True)
class Progress:
    """Where a run stands."""

    step: int = 0
    """Steps of the run, in which adapters that joined later had no part."""
    seconds: float = 0.0
    """Spent in steps."""
    loss_scale: tuple[float, int] = (1.0, 0)
    jobs: tuple[JobProgress, ...] = field(default=())

    def with_job(self, index: int, **changes: Any) -> Progress:
        """The same with one adapter's progress changed."""
        jobs = list(self.jobs)
        jobs[index] = replace(jobs[index], **changes)
        return replace(self, jobs=tuple(jobs))

    @property
    def training(self) -> list[int]:
        """Places of the adapters that are still trained."""
        return [index for index, job in enumerate(self.jobs) if job.is_training]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> Progress:
        jobs = []
        for job in tree["jobs"]:
            result = job.pop("result")
            jobs.append(JobProgress(**job, result=result and AdapterResult(**result)))
        scale, good_steps = tree["loss_scale"]
        return cls(tree["step"], tree["seconds"], (scale, good_steps), tuple(jobs))
