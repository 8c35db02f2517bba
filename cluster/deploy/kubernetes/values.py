"""The chart's values as a whole: read, checked, and written as the chart's own schema."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from cluster.deploy.kubernetes.access import Monitoring, Network, RayToken, ServiceAccount
from cluster.deploy.kubernetes.pods import Image
from cluster.deploy.kubernetes.roles import Queue, Serving, Training
from cluster.deploy.kubernetes.section import Labels, Section
from cluster.deploy.kubernetes.storage import BaseModelSource, Runs, Scratch, Store
from cluster.deploy.settings_file import read_settings
from cluster.training.queue_config import QueueConfig
from propulsion.errors import ConfigError

SCHEMA_DIALECT = "https://json-schema.org/draft/2020-12/schema"


class Values(Section):
    """Values of the Helm chart `propulsion`."""

    image: Image = Field(description="The container image.")
    ray_version: str = Field(
        "2.60.0", pattern=r"^2\.\d+\.\d+$", description="Ray's version in that image."
    )
    gpu_resource: str = Field("nvidia.com/gpu", description="What the nodes call their GPUs.")
    base: BaseModelSource = Field(description="The frozen base model.")
    store: Store = Field(description="The adapter store.")
    runs: Runs = Field(Runs(), description="The volume of the runs.")
    scratch: Scratch = Field(Scratch(), description="What a pod may write.")
    environment: Labels = Field({}, description="Environment variables of every container.")
    service_account: ServiceAccount = Field(ServiceAccount(), description="Who the pods are.")
    ray_token: RayToken = Field(RayToken(), description="Ray's token authentication.")
    network: Network = Field(Network(), description="Who may reach the pods.")
    monitoring: Monitoring = Field(Monitoring(), description="Who watches them.")
    training: Training = Field(Training(), description="A training run.")
    queue: Queue = Field(Queue(), description="A queue of training runs.")
    serving: Serving = Field(Serving(enabled=False), description="The server.")

    @model_validator(mode="after")
    def _volume_is_there(self) -> Values:
        for name in ("training", "queue"):
            if getattr(self, name).enabled and self.runs.claim is None:
                raise ValueError(f"{name} needs a volume for checkpoints: give runs.claim")
        if self.store.url.startswith("/") and self.runs.claim is None:
            raise ValueError(
                f"store.url {self.store.url} is a folder in the pods: give runs.claim, the volume "
                "that it is on, or the URL of a bucket"
            )
        return self

    def tree(self) -> dict[str, Any]:
        """As a values file holds them; what was not given is the default."""
        return self.model_dump(mode="json", by_alias=True)


def load_values(path: str | Path) -> Values:
    """Read a values file.

    Raises:
        ConfigError: the file is missing or not YAML, or a key of it, of its run file, of the
            queue's settings or of the server's options is unknown, missing or wrong.
    """
    path = Path(path)
    values = read_settings(path, Values, "values file", "values")
    if values.serving.enabled:
        _check_options(values, f"{path}: serving.options")
    if values.training.enabled:
        _check_run(values.training.run, f"{path}: training.run")
    if values.queue.enabled:
        _check(QueueConfig, values.queue.settings, f"{path}: queue.settings")
    return values


def _check_options(values: Values, where: str) -> None:
    """Tell now what the Serve application would refuse."""
    from cluster.serving.config import ClusterServeConfig

    given = {"base": values.base.path, "store": values.store.url, **values.serving.options}
    _check(ClusterServeConfig, given, where)


def _check(model: type[BaseModel], given: dict[str, Any], where: str) -> None:
    try:
        model.model_validate(given)
    except ValidationError as error:
        problem = error.errors()[0]
        name = ".".join(map(str, problem["loc"]))
        raise ConfigError(f"{where}.{name}: {problem['msg']}") from error


def _check_run(tree: dict[str, Any], where: str) -> None:
    """Tell now what a trainer would refuse when its pods are there."""
    from trainer.config import load_run

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "run.yaml"
        file.write_text(yaml.safe_dump(tree), encoding="utf-8")
        try:
            load_run(file)
        except ConfigError as error:
            raise ConfigError(str(error).replace(str(file), where)) from error


def values_schema() -> dict[str, Any]:
    """JSON schema of the values, which Helm checks them against."""
    return {"$schema": SCHEMA_DIALECT, **Values.model_json_schema(by_alias=True)}
