"""What the server can be told, each option explained once: here and in the parts' own models."""

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, Field, ValidationError

from adapters.backends.location import protocol_of
from propulsion.errors import ConfigError
from serving.observability.config import ObservabilityConfig
from serving.plugin import KINDS, Kind
from serving.security.config import SecurityConfig


class ServeConfig(SecurityConfig, ObservabilityConfig):
    """Options of `propulsion serve`."""

    base: Path = Field(description="Folder of the frozen base model, in Hugging Face format.")
    store: Annotated[str, BeforeValidator(str)] = Field(
        description="Adapter store: a folder, s3://bucket/prefix or another URL."
    )
    store_cache: Path | None = Field(
        None, description="Folder that versions of a remote store are copied to."
    )
    store_cache_bytes: int | None = Field(
        None, ge=1, description="Size limit of that folder; unlimited by default."
    )
    host: str = Field(
        "127.0.0.1", description="Address to listen on; one beyond loopback needs API keys."
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
    max_lora_adapters: int = Field(
        0, ge=0, description="LoRA adapters served at a time, beside Propulsion ones."
    )
    max_head_labels: int = Field(
        16,
        ge=1,
        description="Most labels of an adapter's own head; takes memory only where the server "
        "classifies.",
    )
    scaled_kinds: tuple[Kind, ...] = Field(
        KINDS, min_length=1, description="Kinds of layers that adapters may scale; repeatable."
    )
    scaled_modules: tuple[str, ...] = Field(
        (),
        description="Only modules of these names may be scaled, which makes bank rows smaller; "
        "repeatable. By default all.",
    )
    bank_dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="How the bank holds scales; arithmetic is in float32 always."
    )
    fusion: bool = Field(
        True,
        description="Whether activations scale what they are given in their own pass, or every "
        "layer is scaled in a pass after it.",
    )
    preload: tuple[str, ...] = Field(
        (), description="Adapter to load and pin before the first request; repeatable."
    )
    resolution_ttl_seconds: float = Field(
        1.0,
        ge=0,
        description="How long a name may mean what it meant after someone else moved its alias.",
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
    drain_seconds: int = Field(
        30, ge=0, description="On SIGTERM, seconds that running requests get to finish."
    )
    vllm_args: tuple[str, ...] = Field((), description="Further vLLM server options, after `--`.")

    @property
    def model_name(self) -> str:
        """The name by which requests mean the base model."""
        return self.served_name or self.base.resolve().name

    @property
    def host_capacity(self) -> int:
        """Adapters kept in host memory."""
        return self.max_cpu_adapters or self.max_adapters


ConfigT = TypeVar("ConfigT", bound=ServeConfig)


def serve_config(**options: object) -> ServeConfig:
    """A checked ServeConfig, see `checked_config`."""
    return checked_config(ServeConfig, options)


def checked_config(kind: type[ConfigT], options: Mapping[str, Any]) -> ConfigT:
    """Options of a server, or of one that has more of them, checked.

    Args:
        kind: ServeConfig or a class made from it.
        options: by field name.

    Raises:
        ConfigError: an option is unknown or malformed, a folder is missing, the keys cannot be
            used, or the address is open to other machines while there are none.
    """
    # Imported here: reading keys needs yaml, `--help` does not.
    from serving.security.keys import KeyRing

    try:
        config = kind(**options)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise ConfigError(f"serve option {where}: {problem['msg']}") from error
    if not config.base.is_dir():
        raise ConfigError(f"--base {config.base}: there is no such folder")
    if not protocol_of(config.store) and not Path(config.store).is_dir():
        raise ConfigError(f"--store {config.store}: there is no such folder")
    KeyRing(config.api_keys, config.keys_file)
    if not config.asks_for_keys and not is_loopback(config.host):
        raise ConfigError(
            f"--host {config.host} can be reached from other machines: give --keys-file or "
            "--api-key, or listen on 127.0.0.1"
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
