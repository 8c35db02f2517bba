"""vLLM engine arguments and requests for Propulsion adapters, for the server and for offline use.

llm = LLM(**engine_options("path/to/base", dtype="float32"))
llm.generate(prompts, params, lora_request=[adapter_request(version), None])
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from propulsion.errors import ConfigError, PropulsionError
from serving import vllm_compat
from serving.plugin import CONFIG_KEY, KINDS, PluginConfig
from serving.worker.rpc import LOAD_METHOD, UNLOAD_METHOD, load_arguments, raise_load_error

_CPU_KV_CACHE_BYTES = 1 << 30
_WORKER_EXTENSION = "serving.worker.rpc.WorkerRpc"


def engine_options(
    base: str | Path,
    *,
    max_adapters: int = 64,
    max_cpu_adapters: int | None = None,
    max_lora_adapters: int = 0,
    max_head_labels: int = 16,
    scaled_kinds: Sequence[str] = KINDS,
    scaled_modules: Sequence[str] = (),
    bank_dtype: str = "float32",
    fusion: bool = True,
    dtype: str = "auto",
    **vllm_options: Any,
) -> dict[str, Any]:
    """Keyword arguments for `vllm.LLM` or `AsyncEngineArgs` of an engine that serves adapters.

    Args:
        base: folder (or hub name) of the frozen base model.
        max_adapters: slots, the most distinct adapters one batch may mix.
        max_cpu_adapters: adapters kept in host memory, at least and by default `max_adapters`.
        max_lora_adapters: LoRA adapters that one batch may mix, beside Propulsion ones.
        max_head_labels: most labels of an adapter's own head, in an engine that classifies.
        scaled_kinds: kinds of layers that adapters may scale: linear, norm, embedding.
        scaled_modules: if given, the only modules that adapters may scale, by the ends of their
            names; fewer make smaller bank rows.
        bank_dtype: how the bank holds s - 1: float32, bfloat16 or float16.
        fusion: whether activations, rotary embeddings and norms scale what they are given in their
            own pass; else every layer is scaled in a pass after it.
        dtype: the base model's activations; scales are applied in float32 whatever it is.
        vllm_options: any other engine argument of vLLM, passed on.

    Raises:
        ConfigError: the installed vLLM is not supported, or the numbers contradict each other.
    """
    vllm_compat.require_supported()
    if max_adapters < 1:
        raise ConfigError(f"max_adapters must be at least 1, not {max_adapters}")
    max_cpu_adapters = max_cpu_adapters or max_adapters
    if max_cpu_adapters < max_adapters:
        raise ConfigError(
            f"max_cpu_adapters ({max_cpu_adapters}) must be at least max_adapters "
            f"({max_adapters}): every slot's adapter is also held in host memory"
        )
    if "worker_extension_cls" in vllm_options:
        raise ConfigError(f"worker_extension_cls is taken: the plug-in needs {_WORKER_EXTENSION}")
    try:
        plugin = PluginConfig(
            enabled=True,
            kinds=tuple(scaled_kinds),
            modules=tuple(scaled_modules),
            bank_dtype=bank_dtype,
            fusion=fusion,
            max_lora_adapters=max_lora_adapters,
            max_head_labels=max_head_labels,
        )
    except ValidationError as error:
        problem = error.errors()[0]
        raise ConfigError(f"engine option {problem['loc'][0]}: {problem['msg']}") from error
    additional_config = {
        **vllm_options.pop("additional_config", {}),
        CONFIG_KEY: plugin.model_dump(mode="json"),
    }
    if (
        vllm_compat.current_platform.is_cpu()
        and vllm_options.get("kv_cache_memory_bytes") is None
        and not os.environ.get("VLLM_CPU_KVCACHE_SPACE")
    ):
        # vLLM's own default takes a large share of the machine's memory.
        vllm_options["kv_cache_memory_bytes"] = _CPU_KV_CACHE_BYTES
    return {
        "model": str(base),
        "dtype": dtype,
        "enable_lora": True,
        "max_loras": max_adapters,
        "max_cpu_loras": max_cpu_adapters,
        "additional_config": additional_config,
        "worker_extension_cls": _WORKER_EXTENSION,
        **vllm_options,
    }


class AdapterIds:
    """Integer ids for adapter versions: one id a version, never given to another one."""

    def __init__(self) -> None:
        self._ids: dict[tuple[str, str], int] = {}

    def id_of(self, version: Any) -> int:
        """The id of an AdapterVersion, from 1."""
        return self._ids.setdefault((version.reference, str(version.path)), len(self._ids) + 1)


# Engines tell adapters apart by id alone, so all requests of one process must draw from one count.
_ids = AdapterIds()


def adapter_request(version: Any) -> Any:
    """The LoRARequest that makes vLLM apply a store's AdapterVersion.

    vLLM salts its prefix cache with name and path; both change with the version. An adapter that is
    not loaded is read when the request is scheduled, where a bad file or one that does not fit is
    fatal to the engine: `load_adapter` finds out before.
    """
    return vllm_compat.LoRARequest(
        lora_name=version.reference,
        lora_int_id=_ids.id_of(version),
        lora_path=str(version.path),
    )


def load_adapter(llm: Any, version: Any) -> None:
    """Read an adapter to the host memory of an offline `vllm.LLM`, where it stays.

    Raises:
        AdapterCorruptError: a file is missing, truncated or not a Propulsion adapter.
        BaseMismatchError: it does not fit the base model. The engine lives on in both cases, and
            no rank of it keeps the adapter.
    """
    request = adapter_request(version)
    replies = llm.collective_rpc(LOAD_METHOD, args=load_arguments(request))
    try:
        raise_load_error(replies)
    except PropulsionError:
        llm.collective_rpc(UNLOAD_METHOD, args=(request.lora_int_id,))
        raise
