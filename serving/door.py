"""The app that clients reach while the engine behind it comes and goes."""

from contextlib import AbstractAsyncContextManager
from http import HTTPStatus
from typing import Any

from serving.security.refusals import refuse

# These tell how the server is, and need no engine.
_ALWAYS_ANSWERED = ("/metrics", "/console", "/admin/")
_PROBES = ("/health", "/ping")
_STARTING = "The engine is starting; try again in a few seconds."
_RETRY_SECONDS = "5"


class Door:
    """ASGI app that passes requests on to the present engine's app, or answers 503.

    The server listens before its engine runs and after it died, so that probes are told, not
    refused.
    """

    def __init__(self) -> None:
        self._app: Any = None
        self._is_open = False
        self._lifespan: AbstractAsyncContextManager[Any] | None = None

    async def open(self, app: Any) -> None:
        """Pass requests on to a FastAPI app, which is started; the one before is forgotten."""
        await self.close()
        self._lifespan = app.router.lifespan_context(app)
        await self._lifespan.__aenter__()
        self._app = app
        self._is_open = True

    async def close(self) -> None:
        """Answer 503, but for what tells how the server is; requests under way go on."""
        self._is_open = False
        if self._lifespan is not None:
            lifespan, self._lifespan = self._lifespan, None
            await lifespan.__aexit__(None, None, None)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        told = self._app is not None and scope["path"].startswith(_ALWAYS_ANSWERED)
        if self._is_open or told:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1013})
        else:
            await _unavailable(scope, receive, send)


async def _unavailable(scope: Any, receive: Any, send: Any) -> None:
    headers = {"Retry-After": _RETRY_SECONDS}
    if scope["path"] not in _PROBES:
        await refuse(scope, receive, send, HTTPStatus.SERVICE_UNAVAILABLE, _STARTING, headers)
        return
    # Starlette comes with the server, not with this module's other users.
    from starlette.responses import Response

    await Response(status_code=503, headers=headers)(scope, receive, send)
