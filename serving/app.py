"""vLLM's OpenAI app with the store's models, the admin API and the console in it."""

import time
from argparse import Namespace
from functools import partial
from typing import Any

from fastapi import FastAPI

from adapters.store import AdapterStore
from propulsion.heads import saved_labels
from propulsion.version import __version__
from serving import vllm_compat, vllm_compat_pooling
from serving.admin.router import Server, build_router
from serving.admin.schemas import EngineStatus
from serving.config import ServeConfig
from serving.console.routes import console_routes
from serving.observability.instrument import instrument_engine
from serving.observability.metrics import ServeMetrics
from serving.registry.engine_adapters import EngineAdapters
from serving.registry.invocations import InvocationModel
from serving.registry.listing import StoreListing
from serving.registry.loader import AdapterLoader
from serving.registry.models import ModelRefusedError, StoreModels, answer_refused
from serving.registry.preload import preload
from serving.registry.preparation import preparation
from serving.registry.resolution import Resolver


class Service:
    """What outlives an engine: the store, what is known of it, and what should be loaded.

    Args:
        config: the server's options.
        base_fingerprint: of the base served; adapters of another one are refused.
        metrics: the server's.

    Attributes:
        loader: of the engine in use.
        restarts: engines started after the first.
    """

    def __init__(self, config: ServeConfig, base_fingerprint: str, metrics: ServeMetrics):
        self._config = config
        self._metrics = metrics
        self._engine: Any = None
        self._store = AdapterStore(
            config.store, cache=config.store_cache, cache_bytes=config.store_cache_bytes
        )
        prepare = preparation(self._store, base_fingerprint, config.base)
        self.loader = AdapterLoader(
            None,
            prepare,
            config.host_capacity,
            metrics,
            max_loras=config.max_lora_adapters,
            read_labels=saved_labels,
        )
        self._listing = StoreListing(self._store)
        self._resolver = Resolver(
            self._store, self.loader.residents, ttl_seconds=config.resolution_ttl_seconds
        )
        self.restarts = 0
        self._admin = build_router(
            self._store,
            self._listing,
            self.loader,
            self._resolver,
            Server(
                base=config.model_name,
                base_fingerprint=base_fingerprint,
                version=__version__,
                engine=self._engine_status,
                started=time.monotonic(),
            ),
        )
        metrics.set_capacity(config.host_capacity)

    async def app(self, args: Namespace, engine: Any) -> FastAPI:
        """The app that serves `engine`, which has loaded what should be there from the start.

        Args:
            args: vLLM's server arguments.
            engine: vLLM's engine client, just started.
        """
        is_first = self._engine is None
        self._engine = engine
        instrument_engine(engine, self._metrics)
        vllm_compat.drop_unbounded_metrics(engine)
        tasks = await engine.get_supported_tasks()
        app: FastAPI = vllm_compat.build_app(args, tasks, engine.model_config)
        vllm_compat.delegate_model_check(StoreModels)
        vllm_compat_pooling.label_answers(lambda request: self.loader.labels(request.lora_name))
        make_models = partial(
            StoreModels,
            resolver=self._resolver,
            listing=self._listing,
            loader=self.loader,
            metrics=self._metrics,
            base_answers=await EngineAdapters(engine).base_answers(),
        )
        with vllm_compat.serving_models(make_models):
            await vllm_compat.init_app_state(engine, app.state, args, tasks)
        # vLLM would stop this when its engine dies.
        app.state.server = Namespace(should_exit=False)
        # vLLM has built it already, and what is added from here on would not be in it.
        app.middleware_stack = None
        app.add_exception_handler(ModelRefusedError, answer_refused)
        app.add_middleware(InvocationModel)
        app.include_router(self._admin)
        app.router.routes.extend(console_routes())
        await self.loader.reset(engine)
        if is_first:
            await preload(self._config.preload, self._resolver, self.loader)
        return app

    def forget(self, name: str) -> None:
        """Ask the store about this adapter from the next request on: its aliases have changed."""
        self._resolver.forget(name)

    def close(self) -> None:
        """Let go of the store."""
        self._resolver.close()

    def _engine_status(self) -> EngineStatus:
        return EngineStatus(healthy=not self._engine.errored, restarts=self.restarts)
