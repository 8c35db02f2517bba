"""A run: one base, and the adapters that are trained on it together."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from trainer.config.adapter import AdapterSection
from trainer.config.batching import BatchingSection
from trainer.config.checkpoints import CheckpointSection
from trainer.config.cluster import ClusterSection
from trainer.config.data import DataSection
from trainer.config.deepspeed import DeepSpeedSection
from trainer.config.evaluation import EvaluationSection
from trainer.config.publish import PublishSection
from trainer.config.section import Section
from trainer.config.task import AnswerTask, TaskSection
from trainer.config.training import TrainingSection

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class JobConfig(Section):
    """One adapter of a run: what it is, what it learns from, and where it goes."""

    name: Name = Field(description="Name of the adapter.")
    seed: int = Field(0, description="Seeds the order of its data.")
    adapter: AdapterSection = Field(default_factory=AdapterSection)
    data: DataSection
    training: TrainingSection
    publish: PublishSection | None = None

    @model_validator(mode="after")
    def _early_stop_evaluates(self) -> JobConfig:
        if self.training.early_stop is not None and self.training.eval_every is None:
            raise ValueError("training.early_stop needs training.eval_every")
        return self


class RunConfig(Section):
    """A whole training run, its adapters spelled out. All paths are absolute."""

    name: Name
    base: str = Field(description="Base model: a folder or a hub name.")
    output_dir: Path
    seed: int = 0
    task: TaskSection = Field(default_factory=AnswerTask)
    jobs: list[JobConfig] = Field(min_length=1)
    batching: BatchingSection = Field(default_factory=BatchingSection)
    deepspeed: DeepSpeedSection = Field(default_factory=DeepSpeedSection)
    checkpoints: CheckpointSection = Field(default_factory=CheckpointSection)
    evaluation: EvaluationSection = Field(default_factory=EvaluationSection)
    cluster: ClusterSection = Field(default_factory=ClusterSection)
    metrics_port: int | None = None
    metrics_host: str = "127.0.0.1"
    metrics_targets: Path | None = None
    tensorboard: bool = False

    @property
    def job(self) -> JobConfig:
        """The adapter of a run that has but one."""
        if len(self.jobs) != 1:
            raise ValueError(f"the run {self.name!r} has {len(self.jobs)} adapters")
        return self.jobs[0]

    @model_validator(mode="after")
    def _names_differ(self) -> RunConfig:
        names = [job.name for job in self.jobs]
        if len({*names}) < len(names):
            raise ValueError(f"two adapters have the same name: {', '.join(sorted(names))}")
        return self


class RunFile(Section):
    """The YAML file of a run. Relative paths are relative to the file."""

    name: Name = Field(description="Name of the run, and of its adapter if it has but one.")
    base: str = Field(description="Base model: a folder or a hub name.")
    output_dir: Path = Field(description="Where checkpoints, metrics and adapters are written.")
    seed: int = Field(0, description="Seeds data order and initialisation.")
    task: TaskSection = Field(default_factory=AnswerTask)
    adapter: AdapterSection = Field(default_factory=AdapterSection)
    data: DataSection | None = None
    training: TrainingSection | None = None
    publish: PublishSection | None = None
    adapters: dict[Name, dict[str, Any] | None] = Field(
        {},
        description=(
            "Several adapters trained together: name → the keys of `seed`, `adapter`, `data`, "
            "`training` and `publish` in which it differs from the sections above."
        ),
    )
    sweep: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(
        {},
        description=(
            "Key → values, as `training.lr: [1e-3, 3e-3]`: an adapter for each combination, all "
            "trained together."
        ),
    )
    batching: BatchingSection = Field(default_factory=BatchingSection)
    deepspeed: DeepSpeedSection = Field(default_factory=DeepSpeedSection)
    checkpoints: CheckpointSection = Field(default_factory=CheckpointSection)
    evaluation: EvaluationSection = Field(default_factory=EvaluationSection)
    cluster: ClusterSection = Field(default_factory=ClusterSection)
    metrics_port: int | None = Field(
        None, ge=0, le=65535, description="Port of /metrics while training; 0 picks one."
    )
    metrics_host: str = Field(
        "127.0.0.1",
        description="Address of /metrics. Whoever reaches it may read it: beyond loopback, in a "
        "network of your own.",
    )
    metrics_targets: Path | None = Field(
        None,
        description="Folder in which the run lists itself for Prometheus (file_sd) until it ends; "
        "one that fails or is killed stays listed.",
    )
    tensorboard: bool = Field(False, description="Also write output_dir/tensorboard.")

    @model_validator(mode="after")
    def _targets_have_a_port(self) -> RunFile:
        if self.metrics_targets is not None and self.metrics_port is None:
            raise ValueError("metrics_targets needs metrics_port")
        return self
