"""vLLM's general plug-in: loaded in every vLLM process, active only in engines that ask for it.

An engine asks with `additional_config={"propulsion": {"enabled": True}}` and `enable_lora=True`;
`serving.engine.engine_options` sets both. Every other engine keeps vLLM's own LoRA manager.
"""

import logging
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from propulsion.errors import ConfigError
from serving import vllm_compat, vllm_compat_pooling
from serving.orphans import follow_server

CONFIG_KEY = "propulsion"

Kind = Literal["linear", "norm", "embedding"]
KINDS: tuple[Kind, ...] = get_args(Kind)

logger = logging.getLogger(__name__)


class PluginConfig(BaseModel):
    """What `additional_config["propulsion"]` may hold; it reaches every worker process."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = Field(False, description="Serve Propulsion adapters from this engine.")
    kinds: tuple[Kind, ...] = Field(KINDS, description="Kinds of layers that adapters may scale.")
    modules: tuple[str, ...] = Field(
        (),
        description="If given, the names of the modules that adapters may scale, as in PEFT's "
        "target_modules; fewer make smaller bank rows.",
    )
    bank_dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="How the bank holds s - 1; arithmetic is in float32 always."
    )
    max_lora_adapters: int = Field(
        0, ge=0, description="LoRA adapters that one batch may mix beside Propulsion ones."
    )
    max_head_labels: int = Field(
        16, ge=1, description="Most labels of an adapter's own head, if the engine classifies."
    )
    fusion: bool = Field(
        True, description="Scale in the passes that the model makes anyway, where there are any."
    )


def plugin_config(vllm_config: Any) -> PluginConfig:
    """What the engine of this VllmConfig asked for."""
    extra = vllm_config.additional_config
    options = extra.get(CONFIG_KEY, {}) if isinstance(extra, dict) else {}
    return PluginConfig.model_validate(options)


def is_enabled(vllm_config: Any) -> bool:
    """Whether the engine of this VllmConfig asked for Propulsion adapters."""
    return plugin_config(vllm_config).enabled


def register() -> None:
    """Entry point of `vllm.general_plugins`. Idempotent.

    An unsupported vLLM is left as it is, so that engines that never asked for us still start;
    `engine_options` refuses it for those that do.
    """
    try:
        vllm_compat.require_supported()
    except ConfigError as error:
        logger.warning("Propulsion plug-in not loaded: %s", error)
        return
    vllm_compat.install_worker_adapters(is_enabled, _make_worker_adapters)
    vllm_compat_pooling.accept_missing_heads(is_enabled)
    follow_server()


def _make_worker_adapters(vllm_config: Any, device: Any, embedding_modules: dict[str, str]) -> Any:
    # Imported here: only a worker process needs the layers, every vLLM process runs register().
    from serving.worker.adapters import WorkerAdapters

    return WorkerAdapters(vllm_config, device, embedding_modules)
