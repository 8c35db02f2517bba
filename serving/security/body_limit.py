"""Refuses request bodies beyond a size, before anyone holds them in memory."""

from http import HTTPStatus
from typing import Any

from serving.security.refusals import refuse


class BodyLimit:
    """ASGI middleware that answers 413 to a request whose body is larger than `max_bytes`.

    A length that the client declares is judged before a byte is read. Without one the chunks are
    counted on their way, and the app is told that the client has left once they are too many: at
    most `max_bytes` ever reach it. The server then drops what is still sent.
    """

    def __init__(self, app: Any, max_bytes: int):
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        message = f"The request body is larger than the {self._max_bytes} bytes this server takes."
        status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        if self._is_declared_too_large(scope):
            await refuse(scope, receive, send, status, message)
            return
        num_bytes, started, refused = 0, False, False

        async def counted() -> Any:
            nonlocal num_bytes, refused
            if refused:
                return {"type": "http.disconnect"}
            part = await receive()
            num_bytes += len(part.get("body", b"")) if part["type"] == "http.request" else 0
            if num_bytes <= self._max_bytes:
                return part
            refused = True
            if not started:
                await refuse(scope, receive, send, status, message)
            return {"type": "http.disconnect"}

        async def unless_refused(part: Any) -> None:
            nonlocal started
            # Once we have answered, whatever the app makes of the broken body has no reader.
            if not refused or started:
                started = True
                await send(part)

        try:
            await self._app(scope, counted, unless_refused)
        except Exception:
            # Of an app that was told that its client left; the client has its answer.
            if not refused or started:
                raise

    def _is_declared_too_large(self, scope: Any) -> bool:
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit():
                # A number of very many digits would be slow to read, and needs no reading.
                digits = value.lstrip(b"0")
                return len(digits) > 18 or int(digits or b"0") > self._max_bytes
        return False
