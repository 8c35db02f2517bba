"""Follows each HTTP request to its end, whichever it is: releases what it used and counts it."""

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from serving.observability.metrics import ServeMetrics


@dataclass
class RequestRecord:
    """What is known of the request being answered.

    Attributes:
        label: its adapter's metrics label; None until a model was looked up.
        on_end: called once the response has been sent or the client has left.
    """

    label: str | None = None
    on_end: list[Callable[[], None]] = field(default_factory=list)


# A context variable: vLLM's handlers do not pass the HTTP request to where models are checked.
current_request: ContextVar[RequestRecord | None] = ContextVar("propulsion_request", default=None)


class RequestTracking:
    """ASGI middleware that opens a RequestRecord for each request."""

    def __init__(self, app: Any, metrics: ServeMetrics):
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = RequestRecord()
        token = current_request.set(record)
        status, complete = 500, False

        async def watch(message: Any) -> None:
            nonlocal status, complete
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                complete = True

        try:
            await self._app(scope, receive, watch)
        finally:
            current_request.reset(token)
            for callback in record.on_end:
                callback()
            if record.label is not None:
                self._metrics.count_request(record.label, _outcome(status, complete))


def _outcome(status: int, complete: bool) -> str:
    if status >= 500:
        return "server_error"
    if status >= 400:
        return "client_error"
    return "ok" if complete else "aborted"
