"""What the server can be told, each option explained once: here."""

import ipaddress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from propulsion.errors import ConfigError


class ServeConfig(BaseModel):
    """Options of `propulsion serve`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base: Path = Field(description="Folder of the frozen base model, in Hugging Face format.")
    store: Path = Field(description="Folder of the adapter store.")
    host: str = Field(
        "127.0.0.1", description="Address to listen on; one beyond loopback needs an API key."
    )
    port: int = Field(8000, ge=1, le=65535, description="TCP port to listen on.")
    served_name: str | None = Field(
        None,
        min_length=1,
        description="Name of the base model in requests; its folder's by default.",
    )
    max_adapters: int = Field(
        64, ge=1, description="Bank slots: the most distinct adapters one batch may mix."
    )
    max_cpu_adapters: int | None = Field(
        None,
        ge=1,
        description="Adapters kept in host memory, at least --max-adapters, which is the default.",
    )
    dtype: str = Field(
        "auto", description="Activations of the base model: auto, float32, bfloat16 or float16."
    )
    enforce_eager: bool | None = Field(
        None, description="Run without CUDA graphs and torch.compile; by default only on CPU."
    )
    max_model_len: int | None = Field(
        None, ge=1, description="Longest prompt plus answer in tokens; the model's own by default."
    )
    api_keys: tuple[SecretStr, ...] = Field(
        (), description="Keys that clients may authenticate with, also PROPULSION_API_KEY."
    )
    metrics_top_adapters: int = Field(
        50,
        ge=0,
        description="Adapters with metrics series of their own; further ones share `other`.",
    )
    drain_seconds: int = Field(
        30, ge=0, description="On SIGTERM, seconds that running requests get to finish."
    )
    vllm_args: tuple[str, ...] = Field((), description="Further vLLM server options, after `--`.")

    @property
    def model_name(self) -> str:
        """The name by which requests mean the base model."""
        return self.served_name or self.base.resolve().name


def serve_config(**options: object) -> ServeConfig:
    """A checked ServeConfig.

    Raises:
        ConfigError: an option is unknown or malformed, a folder is missing, or the address is open
            to other machines while there is no API key.
    """
    try:
        config = ServeConfig(**options)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise ConfigError(f"serve option {where}: {problem['msg']}") from error
    if not config.base.is_dir():
        raise ConfigError(f"--base {config.base}: there is no such folder")
    if not config.store.is_dir():
        raise ConfigError(f"--store {config.store}: there is no such folder")
    if any(not key.get_secret_value().strip() for key in config.api_keys):
        raise ConfigError("an API key is empty: unset PROPULSION_API_KEY or give it a value")
    if not config.api_keys and not is_loopback(config.host):
        raise ConfigError(
            f"--host {config.host} can be reached from other machines: give --api-key or set "
            "PROPULSION_API_KEY, or listen on 127.0.0.1"
        )
    return config


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server bound to `host`; of names, only localhost."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
