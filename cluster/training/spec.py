"""What a Ray job of ours is told: the run that it trains, and whose results these are."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, ValidationError

from cluster.training.queue_config import Capacity
from propulsion.errors import ConfigError
from trainer.config import JobConfig, RunConfig
from trainer.config.section import Section


class Member(Section):
    """A run that was packed into a job."""

    id: str = Field(description="Of the queued run.")
    name: str = Field(description="Of the run.")
    output_dir: Path = Field(description="Where its own results go.")
    adapters: list[str] = Field(description="Which adapters of the job are its own.")


class JobSpec(Section):
    """The file that a Ray job reads. It lies where every node reaches it."""

    run: RunConfig
    capacity: Capacity | None = Field(
        None, description="What an autoscaled cluster can grow to; its nodes now if not given."
    )
    members: list[Member] = Field(
        [], description="Of a packed job; a run that is alone writes to its own folder."
    )


def with_lineage(run: RunConfig, /, **lineage: str) -> RunConfig:
    """A run whose adapters tell, once they are published, where they come from."""

    def traced(job: JobConfig) -> JobConfig:
        if job.publish is None:
            return job
        publish = job.publish.model_copy(update={"lineage": {**job.publish.lineage, **lineage}})
        return job.model_copy(update={"publish": publish})

    return run.model_copy(update={"jobs": [traced(job) for job in run.jobs]})


def read_spec(path: Path) -> JobSpec:
    """Read the file of a job.

    Raises:
        ConfigError: it is not there, or another version of this package wrote it.
    """
    try:
        return JobSpec.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{path}: {error.strerror}; a job's file must lie on a folder that every node shares"
        ) from error
    except ValidationError as error:
        raise ConfigError(f"{path}: not a job's file: {error}") from error
