"""vLLM's OpenAI app with the store's models in it, and ours around it."""

from argparse import Namespace
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from fastapi import FastAPI

from adapters import AdapterStore, AdapterVersion
from serving import vllm_compat
from serving.config import ServeConfig
from serving.observability.metrics import BASE, ServeMetrics
from serving.observability.tracking import RequestTracking
from serving.registry.loader import AdapterLoader
from serving.registry.models import StoreModels
from serving.security.auth import ApiKeyAuth


async def build_app(
    config: ServeConfig, args: Namespace, engine: Any, base_fingerprint: str
) -> tuple[FastAPI, Any]:
    """The app that serves `engine` and the adapters of `config.store`.

    Args:
        config: the server's options.
        args: vLLM's server arguments, see `serving.server.vllm_arguments`.
        engine: vLLM's engine client.
        base_fingerprint: of the base the engine runs; adapters of another one are refused.

    Returns:
        vLLM's app, and the ASGI app to serve: the same with ours around it. (vLLM's is closed to
        further middleware once built.)
    """
    metrics = ServeMetrics(config.metrics_top_adapters)
    store = AdapterStore(config.store.resolve())

    def check(version: AdapterVersion) -> None:
        store.verify(version).require_base(base_fingerprint, config.base)

    capacity = config.max_cpu_adapters or config.max_adapters
    loader = AdapterLoader(engine, check, capacity, metrics)
    count_generated_tokens(engine, metrics)
    vllm_compat.drop_unbounded_metrics(engine)
    tasks = await engine.get_supported_tasks()
    app = vllm_compat.build_app(args, tasks, engine.model_config)
    vllm_compat.delegate_model_check(StoreModels)
    make_models = partial(StoreModels, store=store, loader=loader, metrics=metrics)
    with vllm_compat.serving_models(make_models):
        await vllm_compat.init_app_state(engine, app.state, args, tasks)
    outer: Any = RequestTracking(app, metrics)
    if config.api_keys:
        outer = ApiKeyAuth(outer, [key.get_secret_value() for key in config.api_keys])
    return app, outer


def count_generated_tokens(engine: Any, metrics: ServeMetrics) -> None:
    """Have an engine client's `generate` count the tokens it yields by adapter."""
    generate = engine.generate

    async def counted(*args: Any, lora_request: Any = None, **kwargs: Any) -> AsyncIterator[Any]:
        name = lora_request.lora_name.partition("@")[0] if lora_request else None
        label = metrics.adapter_label(name) if name else BASE
        async for output in generate(*args, lora_request=lora_request, **kwargs):
            # The server asks for deltas or for the final output only, never for cumulative ones.
            metrics.count_tokens(label, sum(len(choice.token_ids) for choice in output.outputs))
            yield output

    engine.generate = counted
