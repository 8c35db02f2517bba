"""Runs the server: socket, engine, and a shutdown that lets running requests finish.

The server listens from the start. Its engine is started behind it, and again when it dies; until it
runs, requests are told so.
"""

import asyncio
import contextlib
import logging
import os
import signal
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import uvicorn
import uvloop

from adapters import base_fingerprint
from propulsion.errors import ConfigError
from serving import vllm_compat
from serving.app import Service
from serving.config import ServeConfig
from serving.door import Door
from serving.engine import engine_options
from serving.observability.logs import configure_logging
from serving.observability.metrics import ServeMetrics
from serving.observability.record import current_request_id, tokens_used
from serving.observability.tracing import start_exporting, traces_url
from serving.observability.tracking import RequestTracking
from serving.observability.worker_state import watch_worker_state
from serving.orphans import announce_server
from serving.security.stack import secure

logger = logging.getLogger(__name__)

ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    # vLLM's endpoints that load any path a client names, and its answering of unknown models.
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "0",
    "VLLM_SKIP_MODEL_NAME_VALIDATION": "0",
    # Stored responses have no owner: one tenant could read another's.
    "VLLM_ENABLE_RESPONSES_API_STORE": "0",
}

_POLL_SECONDS = 0.2

# An engine that dies so often so soon will not get better by starting it again.
_SHORT_LIFE_SECONDS = 60.0
_MAX_SHORT_LIVES = 3


def run(config: ServeConfig) -> int:
    """Serve until SIGTERM or SIGINT; exit code 0 after a drain, 1 if the engine keeps dying."""
    os.environ.update(ENVIRONMENT)
    announce_server()
    configure_logging(config.log_format, config.log_level)
    endpoint = config.otlp_endpoint
    stop_tracing: Callable[[], None] = start_exporting(endpoint) if endpoint else lambda: None
    try:
        return uvloop.run(_serve(config))
    finally:
        stop_tracing()


async def _serve(config: ServeConfig) -> int:
    fingerprint = await asyncio.to_thread(base_fingerprint, config.base)
    args = vllm_arguments(config)
    metrics = ServeMetrics(config.metrics_top_adapters)
    service = Service(config, fingerprint, metrics)
    door = Door()
    secured = secure(
        door,
        config,
        tokens_used=tokens_used,
        request_id=current_request_id,
        root_path=args.root_path or "",
    )
    server = _Server(_uvicorn_config(RequestTracking(secured, metrics), config, args))
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, server.handle_exit, name, None)
    with _listening(args) as sock:
        # Closes the socket first on its end, then waits for the answers under way.
        answering = asyncio.create_task(server.serve(sockets=[sock]))
        running = asyncio.create_task(_run_engines(args, service, door, metrics))
        await asyncio.wait({answering, running}, return_when=asyncio.FIRST_COMPLETED)
        has_failed = running.done()
        server.should_exit = True
        await answering
        running.cancel()
        try:
            await running
        except asyncio.CancelledError:
            pass
        finally:
            service.close()
    return 1 if has_failed else 0


async def _run_engines(
    args: Namespace, service: Service, door: Door, metrics: ServeMetrics
) -> None:
    """Start the engine, and again whenever it dies; returns when that does not help."""
    engine_args = vllm_compat.AsyncEngineArgs.from_cli_args(args)
    short_lives = 0
    while short_lives < _MAX_SHORT_LIVES:
        async with vllm_compat.running_engine(engine_args) as engine:
            started = time.monotonic()
            watching = None
            try:
                await door.open(await service.app(args, engine))
                metrics.set_engine_up(True)
                logger.info("Ready to serve")
                watching = asyncio.create_task(
                    watch_worker_state(service.loader.engine_state, metrics)
                )
                while not engine.errored:
                    await asyncio.sleep(_POLL_SECONDS)
            finally:
                if watching is not None:
                    watching.cancel()
                metrics.set_engine_up(False)
                await door.close()
                service.loader.lose_engine()
        is_short = time.monotonic() - started < _SHORT_LIFE_SECONDS
        short_lives = short_lives + 1 if is_short else 1
        logger.error("The engine died; starting it again")
        service.restarts += 1
        metrics.count_engine_restart()
    logger.error("The engine died %d times in a row soon after its start", short_lives)


def _listening(args: Namespace) -> Any:
    try:
        _, sock = vllm_compat.setup_server(args, reuse_port=False)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {args.host}:{args.port}: {error.strerror}; choose another --host or "
            "--port"
        ) from error
    return sock


def vllm_arguments(config: ServeConfig) -> Namespace:
    """vLLM's server arguments for `config`; our own options win over `config.vllm_args`."""
    parser = vllm_compat.make_arg_parser(vllm_compat.FlexibleArgumentParser())
    args = parser.parse_args(list(config.vllm_args))
    eager = config.enforce_eager
    options = engine_options(
        Path(config.base).resolve(),
        max_adapters=config.max_adapters,
        max_cpu_adapters=config.max_cpu_adapters,
        max_lora_adapters=config.max_lora_adapters,
        max_head_labels=config.max_head_labels,
        scaled_kinds=config.scaled_kinds,
        scaled_modules=config.scaled_modules,
        bank_dtype=config.bank_dtype,
        fusion=config.fusion,
        dtype=config.dtype,
        enforce_eager=vllm_compat.current_platform.is_cpu() if eager is None else eager,
        served_model_name=[config.model_name],
        shutdown_timeout=config.drain_seconds,
        additional_config=args.additional_config,
        kv_cache_memory_bytes=args.kv_cache_memory_bytes,
    )
    if config.max_model_len is not None:
        options["max_model_len"] = config.max_model_len
    for name, value in {**options, "host": config.host, "port": config.port}.items():
        setattr(args, name, value)
    if config.otlp_endpoint and not args.otlp_traces_endpoint:
        args.otlp_traces_endpoint = traces_url(config.otlp_endpoint)
    vllm_compat.validate_parsed_serve_args(args)
    return args


def _uvicorn_config(app: Any, config: ServeConfig, args: Namespace) -> uvicorn.Config:
    options: dict[str, Any] = {
        "ssl_keyfile": args.ssl_keyfile,
        "ssl_certfile": args.ssl_certfile,
        "ssl_ca_certs": args.ssl_ca_certs,
        "ssl_cert_reqs": args.ssl_cert_reqs,
        "h11_max_incomplete_event_size": args.h11_max_incomplete_event_size,
    }
    if getattr(args, "ssl_ciphers", None):
        options["ssl_ciphers"] = args.ssl_ciphers
    if config.log_format == "json":
        options["log_config"] = None
    return uvicorn.Config(
        app,
        log_level=args.uvicorn_log_level,
        # Ours leaves the query out.
        access_log=False,
        # The engine's app has its own, which the door starts.
        lifespan="off",
        timeout_graceful_shutdown=config.drain_seconds,
        **options,
    )


class _Server(uvicorn.Server):
    """uvicorn without its own signal handling, which would end the process by the signal itself."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
