"""The values about images and pods."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from cluster.deploy.kubernetes.section import Cpus, Labels, Name, Quantity, Section


class Image(Section):
    """Where the container image comes from; see cluster/deploy/containers."""

    repository: str = Field(
        min_length=1, description="Registry and name, as registry.example.com/ml/propulsion."
    )
    tag: str = Field("latest", description="Tag; `digest` is surer.")
    digest: str | None = Field(
        None, pattern=r"^sha256:[0-9a-f]{64}$", description="Digest, which then replaces the tag."
    )
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field(
        "IfNotPresent", description="When the kubelet pulls it."
    )
    pull_secrets: tuple[Name, ...] = Field((), description="Secrets for a private registry.")


class Head(Section):
    """A Ray head's pod. It schedules, and runs neither ranks nor engines."""

    cpus: Cpus = Field("2", description="CPUs it asks for.")
    memory: Quantity = Field("8Gi", description="Memory it asks for, and its limit.")
    node_selector: Labels = Field({}, description="Labels of the nodes it may run on.")
    tolerations: tuple[dict[str, Any], ...] = Field((), description="Taints it tolerates.")


class Workers(Head):
    """The worker pods of a Ray cluster."""

    min: int = Field(1, ge=0, description="Pods that are always there.")
    max: int = Field(1, ge=1, description="Pods that Ray's autoscaler may ask for.")
    cpus: Cpus = Field("8", description="CPUs of each pod.")
    memory: Quantity = Field("32Gi", description="Memory of each pod, and its limit.")
    gpus: int = Field(0, ge=0, description="GPUs of each pod; 0 trains and serves on CPU.")
    idle_seconds: int = Field(
        300, ge=1, description="How long a pod without work stays, beyond `min` of them."
    )

    @model_validator(mode="after")
    def _range_is_in_order(self) -> Workers:
        if self.min > self.max:
            raise ValueError(f"min ({self.min}) is above max ({self.max})")
        return self
