"""`queue.yaml` in a queue's folder: teams, what each may use at once, and limits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, ValidationError

from propulsion.errors import ConfigError
from trainer.config.loading import read_tree
from trainer.config.section import Section

CONFIG_FILE = "queue.yaml"


class TeamQuota(Section):
    """What the running runs of a team may use together; no limit where none is given."""

    gpus: float | None = Field(None, ge=0, description="GPUs.")
    cpus: float | None = Field(None, ge=0, description="CPUs.")


class Capacity(Section):
    """What a cluster has, or can grow to."""

    gpus: float = Field(0, ge=0, description="GPUs.")
    cpus: float = Field(0, ge=0, description="CPUs.")

    @classmethod
    def of(cls, resources: Mapping[str, float]) -> Capacity:
        """What Ray's resources, by its names for them, amount to."""
        return cls(gpus=resources.get("GPU", 0.0), cpus=resources.get("CPU", 0.0))


class QueueConfig(Section):
    """The file `queue.yaml` in the folder of a queue. It is read again when it changes."""

    teams: dict[str, TeamQuota] = Field(
        {"default": TeamQuota(gpus=None, cpus=None)},
        description="Team → its quota. A run of another team is refused.",
    )
    capacity: Capacity | None = Field(
        None,
        description=(
            "What the cluster can grow to, where it autoscales; what its nodes have now if not "
            "given."
        ),
    )
    max_packed: int = Field(
        16, ge=1, description="Runs that share a base and are trained together by one job; 1: none."
    )
    max_restarts: int = Field(
        10, ge=0, description="How often a run that was lost with its head is started again."
    )


def load_queue_config(folder: Path) -> QueueConfig:
    """Read a queue's settings; the defaults if it has no file.

    Raises:
        ConfigError: the file is not YAML, or a key is unknown or wrong.
    """
    path = folder / CONFIG_FILE
    if not path.exists():
        return QueueConfig()
    try:
        return QueueConfig.model_validate(read_tree(path))
    except ValidationError as error:
        lines = [
            f"  {'.'.join(map(str, one['loc']))}: "
            + ("unknown key" if one["type"] == "extra_forbidden" else one["msg"])
            for one in error.errors()
        ]
        raise ConfigError(f"{path}: {len(lines)} problem(s)\n" + "\n".join(lines)) from error
