"""The values about training, the queue and serving."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from cluster.deploy.kubernetes.pods import Head, Workers
from cluster.deploy.kubernetes.section import Name, Section


class Training(Section):
    """One run, as a KubeRay RayJob with a Ray cluster of its own."""

    enabled: bool = Field(False, description="Whether the run is started.")
    run: dict[str, Any] = Field(
        {},
        description="The run file. Paths are those inside the pods; `output_dir` belongs on the "
        "volume of `runs`.",
    )
    head: Head = Field(Head(), description="The Ray head's pod.")
    workers: Workers = Field(
        Workers(),
        description="The worker pods; a rank for each GPU, or for each pod without GPUs. With "
        "min below max the run file's own `cluster.workers` says how many ranks.",
    )
    retries: int = Field(
        2, ge=0, description="Times a lost cluster is replaced; the run resumes from a checkpoint."
    )
    deadline_seconds: int | None = Field(None, ge=1, description="When to give up.")
    keep_seconds: int = Field(
        600, ge=0, description="How long the pods stay when the run is over, for their logs."
    )
    metrics_port: int = Field(
        9101, ge=1024, le=65535, description="The run file's metrics_port, for Prometheus."
    )

    @model_validator(mode="after")
    def _there_is_a_run(self) -> Training:
        if self.enabled and not self.run:
            raise ValueError("run: the run file is missing")
        return self


class Queue(Section):
    """A queue of runs, and a Ray cluster that stays, which trains them."""

    enabled: bool = Field(
        False, description="Whether there is a queue; its folder is queue/ on the volume of `runs`."
    )
    settings: dict[str, Any] = Field(
        {},
        description="Its queue.yaml: teams and their quotas. Its capacity is that of "
        "`workers.max` pods unless given.",
    )
    head: Head = Field(
        Head(), description="The Ray head's pod; each job has a process there that watches it."
    )
    workers: Workers = Field(
        Workers(), description="The worker pods; a rank for each GPU, or for each pod without GPUs."
    )
    metrics_port: int = Field(
        9400, ge=1024, le=65535, description="Where the dispatcher answers Prometheus."
    )


class Redis(Section):
    """Redis that keeps what Ray's head knows, so that serving survives the loss of the head."""

    address: str = Field(min_length=1, description="As redis.example:6379.")
    password_secret: Name | None = Field(
        None, description="Secret whose key `password` holds the password."
    )


class Serving(Section):
    """The server, as a KubeRay RayService."""

    enabled: bool = Field(True, description="Whether the server runs.")
    keys_secret: Name | None = Field(
        None, description="Secret that holds the file of API keys (`propulsion keys`)."
    )
    keys_file: str = Field("keys.yaml", description="The file's key in that Secret.")
    head: Head = Field(Head(), description="The Ray head's pod.")
    workers: Workers = Field(
        Workers(), description="The worker pods; each runs one replica of the engine."
    )
    tensor_parallel: int = Field(1, ge=1, description="GPUs that one replica is spread over.")
    drain_seconds: int = Field(
        120, ge=0, description="How long a pod that has to go finishes what it has begun."
    )
    redis: Redis | None = Field(None, description="Where the head's knowledge survives it.")
    options: dict[str, Any] = Field(
        {}, description="Further arguments of the Serve application, as max_adapters."
    )

    @model_validator(mode="after")
    def _is_guarded_and_fits(self) -> Serving:
        if not self.enabled:
            return self
        if self.keys_secret is None:
            raise ValueError(
                "keysSecret: a server that others can reach needs API keys; make the file with "
                "`propulsion keys create`, and the Secret with `kubectl create secret generic`"
            )
        if self.workers.gpus not in (0, self.tensor_parallel):
            raise ValueError(
                f"a pod runs one replica, which takes tensorParallel ({self.tensor_parallel}) "
                f"GPUs, not workers.gpus ({self.workers.gpus})"
            )
        return self
