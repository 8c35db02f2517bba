"""The run file: one YAML says what is trained, on which data, how, and where it is published."""

from trainer.config.adapter import AdapterSection
from trainer.config.cluster import ClusterSection
from trainer.config.data import DataSection
from trainer.config.deepspeed import DeepSpeedSection
from trainer.config.loading import load_job, load_run
from trainer.config.run import JobConfig, RunConfig, RunFile
from trainer.config.task import TaskSection
from trainer.config.training import TrainingSection

__all__ = [
    "AdapterSection",
    "ClusterSection",
    "DataSection",
    "DeepSpeedSection",
    "JobConfig",
    "RunConfig",
    "RunFile",
    "TaskSection",
    "TrainingSection",
    "load_job",
    "load_run",
]
