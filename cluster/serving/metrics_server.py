"""A replica's own `/metrics`, on a port of its own, under the same keys as the gateway."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import uvicorn
from prometheus_client import make_asgi_app

from cluster.serving.exposition import replica_registry
from serving.security.config import SecurityConfig
from serving.security.stack import secure


class _Server(uvicorn.Server):
    """uvicorn that leaves signals to the process that it runs in."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def metrics_server(host: str, security: SecurityConfig) -> AsyncIterator[str]:
    """Serve the process's metrics while open; the address `host:port`.

    Args:
        host: address to listen on, the port is any free one.
        security: whose keys are asked for, as on the gateway.
    """
    app: Any = _MetricsOnly(make_asgi_app(registry=replica_registry()))
    server = _Server(
        uvicorn.Config(secure(app, security), access_log=False, lifespan="off", log_config=None)
    )
    with socket.create_server((host, 0)) as sock:
        port = sock.getsockname()[1]
        serving = asyncio.create_task(server.serve(sockets=[sock]))
        try:
            yield f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        finally:
            server.should_exit = True
            await serving


class _MetricsOnly:
    def __init__(self, app: Any):
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        from starlette.responses import PlainTextResponse

        app = self._app if scope["path"] == "/metrics" else PlainTextResponse("", status_code=404)
        await app(scope, receive, send)
