"""What a cluster of serving replicas can be told, beside all that a single server can."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from cluster.serving.affinity import AffinityConfig
from serving.config import ServeConfig, checked_config

Routing = Literal["affinity", "round_robin"]


class ClusterServeConfig(ServeConfig):
    """Options of `propulsion cluster serve`, and arguments of `cluster.serving.app:build`."""

    min_replicas: int = Field(1, ge=1, description="Fewest replicas, each with its own engine.")
    max_replicas: int | None = Field(
        None, ge=1, description="Most replicas; as many as --min-replicas by default."
    )
    target_queue: float = Field(
        16.0,
        gt=0,
        description="Requests that run or wait, per replica, that scaling aims at.",
    )
    upscale_delay_seconds: float = Field(
        15.0, ge=0, description="How long the queues must be too long before replicas are added."
    )
    downscale_delay_seconds: float = Field(
        300.0, ge=0, description="How long they must be short before replicas are taken away."
    )
    max_ongoing_requests: int = Field(
        256, ge=1, description="Most requests that one replica is given at a time."
    )
    max_queued_requests: int = Field(
        4096,
        ge=1,
        description="Most requests that wait at the gateway for a replica; more are answered 503.",
    )
    queue_timeout_seconds: float = Field(
        180.0,
        gt=0,
        description="How long a request waits for a replica before it is answered 503; longer than "
        "a replica takes to start, lest the loss of the only one shows.",
    )
    max_retries: int = Field(
        3,
        ge=0,
        description="How often a request is sent again whose replica was lost before the first "
        "byte of its answer.",
    )
    tensor_parallel: int = Field(
        1, ge=1, description="Devices that one replica's engine is split over, all on one node."
    )
    replica_cpus: float = Field(1.0, ge=0, description="CPUs that Ray reserves for each replica.")
    replica_gpus: float | None = Field(
        None,
        ge=0,
        description="GPUs that Ray reserves for each replica; by default --tensor-parallel where "
        "PyTorch has CUDA.",
    )
    gateway_cpus: float = Field(0.0, ge=0, description="CPUs that Ray reserves for the gateway.")
    routing: Routing = Field(
        "affinity",
        description="How replicas are chosen: by the adapter that a request needs, or in turn.",
    )
    routing_stats_seconds: float = Field(
        2.0, gt=0, description="How often replicas tell the gateway which adapters they hold."
    )
    health_check_seconds: float = Field(
        2.0, gt=0, description="How often replicas are asked whether their engine lives."
    )
    affinity: AffinityConfig = Field(
        AffinityConfig(), description="How requests are spread over replicas by adapter."
    )

    @model_validator(mode="after")
    def _check_replicas(self) -> "ClusterServeConfig":
        if self.max_replicas is not None and self.max_replicas < self.min_replicas:
            raise ValueError(
                f"max_replicas ({self.max_replicas}) is less than min_replicas "
                f"({self.min_replicas})"
            )
        return self

    @property
    def most_replicas(self) -> int:
        """Most replicas there may be."""
        return self.max_replicas or self.min_replicas


def cluster_serve_config(**options: Any) -> ClusterServeConfig:
    """A checked ClusterServeConfig; paths become absolute, since replicas run elsewhere.

    Raises:
        ConfigError: as `serving.config.checked_config`.
    """
    config = checked_config(ClusterServeConfig, options)
    absolute = {
        name: value.resolve()
        for name, value in config
        if isinstance(value, Path) and not value.is_absolute()
    }
    if "://" not in config.store:
        absolute["store"] = str(Path(config.store).resolve())
    return config.model_copy(update=absolute)
