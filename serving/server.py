"""Runs the server: engine, app, socket, and a shutdown that lets running requests finish."""

import asyncio
import contextlib
import os
import signal
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import uvicorn
import uvloop

from adapters import base_fingerprint
from serving import vllm_compat
from serving.app import build_app
from serving.config import ServeConfig
from serving.engine import engine_options

_ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    # vLLM's endpoints that load any path a client names, and its answering of unknown models.
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "0",
    "VLLM_SKIP_MODEL_NAME_VALIDATION": "0",
}


def run(config: ServeConfig) -> int:
    """Serve until SIGTERM or SIGINT; the exit code: 0 after a drain, 1 if the engine died."""
    os.environ.update(_ENVIRONMENT)
    # Until the server takes over, a signal must still stop the engine's processes.
    signal.signal(signal.SIGTERM, _interrupt)
    with contextlib.suppress(KeyboardInterrupt):
        return uvloop.run(_serve(config))
    return 130


async def _serve(config: ServeConfig) -> int:
    fingerprint = await asyncio.to_thread(base_fingerprint, config.base)
    args = vllm_arguments(config)
    _, sock = vllm_compat.setup_server(args, reuse_port=False)
    engine_args = vllm_compat.AsyncEngineArgs.from_cli_args(args)
    with sock:
        async with vllm_compat.build_async_engine_client_from_engine_args(engine_args) as engine:
            app, outer = await build_app(config, args, engine, fingerprint)
            server = _Server(
                uvicorn.Config(
                    outer,
                    log_level=args.uvicorn_log_level,
                    access_log=not args.disable_uvicorn_access_log,
                    timeout_graceful_shutdown=config.drain_seconds,
                )
            )
            app.state.server = server
            loop = asyncio.get_running_loop()
            for name in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(name, server.handle_exit, name, None)
            watchdog = loop.create_task(vllm_compat.watchdog_loop(server, engine))
            # Closes the socket first, then waits for the answers under way.
            await server.serve(sockets=[sock])
            watchdog.cancel()
            return 1 if engine.errored else 0


def vllm_arguments(config: ServeConfig) -> Namespace:
    """vLLM's server arguments for `config`; our own options win over `config.vllm_args`."""
    parser = vllm_compat.make_arg_parser(vllm_compat.FlexibleArgumentParser())
    args = parser.parse_args(list(config.vllm_args))
    eager = config.enforce_eager
    options = engine_options(
        Path(config.base).resolve(),
        max_adapters=config.max_adapters,
        max_cpu_adapters=config.max_cpu_adapters,
        dtype=config.dtype,
        enforce_eager=vllm_compat.current_platform.is_cpu() if eager is None else eager,
        served_model_name=[config.model_name],
        shutdown_timeout=config.drain_seconds,
        additional_config=args.additional_config,
    )
    if config.max_model_len is not None:
        options["max_model_len"] = config.max_model_len
    for name, value in {**options, "host": config.host, "port": config.port}.items():
        setattr(args, name, value)
    vllm_compat.validate_parsed_serve_args(args)
    return args


class _Server(uvicorn.Server):
    """uvicorn without its own signal handling, which would end the process by the signal itself."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _interrupt(*_: Any) -> NoReturn:
    raise KeyboardInterrupt
