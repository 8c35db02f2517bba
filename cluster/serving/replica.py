"""One replica: a vLLM engine with the single server's own app, asked by calls instead of HTTP."""

import asyncio
import logging
import os
from argparse import Namespace
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing

from cluster.serving.bridge import AsForwarded, answer_parts
from cluster.serving.config import ClusterServeConfig
from cluster.serving.messages import (
    AnswerPart,
    ForwardedRequest,
    ReplicaLostError,
    WholeAnswer,
)
from cluster.serving.metrics_server import metrics_server
from cluster.serving.routing_key import model_key
from serving.config import is_loopback


class Replica:
    """The deployment of replicas. Its calls come from within the cluster, and are believed.

    An engine that died is not started again here: the health check fails, and Ray Serve starts
    another replica, on another node if need be.

    Args:
        config: the gateway's.
    """

    async def __init__(self, config: ClusterServeConfig):  # type: ignore[misc]
        """Start the engine; Ray Serve awaits this, and sends requests afterwards."""
        from ray import serve

        from adapters import base_fingerprint
        from serving import vllm_compat
        from serving.app import Service
        from serving.door import Door
        from serving.observability.logs import configure_logging
        from serving.observability.metrics import ServeMetrics
        from serving.observability.tracing import start_exporting
        from serving.observability.tracking import RequestTracking
        from serving.observability.worker_state import watch_worker_state
        from serving.orphans import announce_server
        from serving.server import ENVIRONMENT

        os.environ.update(ENVIRONMENT)
        announce_server()
        configure_logging(config.log_format, config.log_level)
        # The gateway logs every request once.
        logging.getLogger("serving.access").setLevel(logging.WARNING)
        self._open = AsyncExitStack()
        if config.otlp_endpoint:
            self._open.callback(start_exporting(config.otlp_endpoint))
        self._name = serve.get_replica_context().replica_id.unique_id
        self._metrics = metrics = ServeMetrics(config.metrics_top_adapters)
        fingerprint = await asyncio.to_thread(base_fingerprint, config.base)
        self._service = Service(config, fingerprint, metrics)
        self._open.callback(self._service.close)
        args = _vllm_arguments(config)
        engine_args = vllm_compat.AsyncEngineArgs.from_cli_args(args)
        self._engine = await self._open.enter_async_context(vllm_compat.running_engine(engine_args))
        door = Door()
        await door.open(await self._service.app(args, self._engine))
        self._open.push_async_callback(door.close)
        metrics.set_engine_up(True)
        watching = asyncio.create_task(
            watch_worker_state(self._service.loader.engine_state, metrics)
        )
        self._open.callback(watching.cancel)
        self._app = RequestTracking(AsForwarded(door), metrics)
        self._target = await self._open.enter_async_context(
            metrics_server(_metrics_host(config), config)
        )

    async def answer(self, request: ForwardedRequest) -> AsyncIterator[AnswerPart]:
        """The answer to a request, in parts.

        Raises:
            ReplicaLostError: the engine has died before the answer began.
        """
        # First of all who it is, so that the gateway knows whom to avoid.
        yield AnswerPart(self._name)
        self._require_engine()
        async with aclosing(answer_parts(self._app, request, self._name)) as parts:
            async for part in parts:
                # A refusal of the request itself needs no engine, and stands.
                if part.head is not None and not 400 <= part.head.status < 500:
                    self._require_engine()
                yield part

    async def answer_whole(self, request: ForwardedRequest) -> WholeAnswer:
        """The answer to a request that all replicas are sent.

        Raises:
            ReplicaLostError: the engine has died.
        """
        parts = [part async for part in self.answer(request)]
        head = next(part.head for part in parts if part.head is not None)
        return WholeAnswer(head.status, head.headers, b"".join(part.body for part in parts))

    async def forget(self, name: str) -> None:
        """Ask the store about this adapter from now on: its aliases have changed."""
        self._service.forget(name)

    async def metrics_target(self) -> tuple[str, str]:
        """The replica's name, and the address of its metrics."""
        return self._name, self._target

    async def check_health(self) -> None:
        """Called by Ray Serve again and again.

        Raises:
            ReplicaLostError: the engine has died.
        """
        self._metrics.set_engine_up(not self._engine.errored)
        self._require_engine()

    async def record_routing_stats(self) -> dict[str, list[str]]:
        """Called by Ray Serve for the router: which adapters are in slots and in host memory."""
        loader = self._service.loader
        slots = (await loader.engine_state()).slots
        stats: dict[str, list[str]] = {"in_slots": [], "in_host": []}
        for reference, resident in loader.residents.items():
            key = model_key(reference)
            if key is not None:
                has_slot = resident.request.lora_int_id in slots
                stats["in_slots" if has_slot else "in_host"].append(key)
        return stats

    async def __del__(self) -> None:
        # Ray Serve awaits it, once the last request has ended.
        await self._open.aclose()

    def _require_engine(self) -> None:
        if self._engine.errored:
            raise ReplicaLostError(f"the engine of replica {self._name} has died")


def _vllm_arguments(config: ClusterServeConfig) -> Namespace:
    from serving.server import vllm_arguments

    args = vllm_arguments(config)
    args.tensor_parallel_size = config.tensor_parallel
    # Ray has placed the replica; its ranks are processes beside it.
    args.distributed_executor_backend = "mp" if config.tensor_parallel > 1 else None
    return args


def _metrics_host(config: ClusterServeConfig) -> str:
    from ray.util import get_node_ip_address

    return config.host if is_loopback(config.host) else get_node_ip_address()
