"""Follows each request to its end, whichever it is: releases what it used, counts and logs it."""

import asyncio
import logging
import re
import time
import uuid
from contextlib import nullcontext
from typing import Any
from urllib.parse import quote

from serving.observability.metrics import UNKNOWN, ServeMetrics
from serving.observability.record import RequestRecord, current_request
from serving.observability.tracing import request_span

__all__ = ["PROBE_PATHS", "RequestRecord", "RequestTracking", "current_request"]

PROBE_PATHS = frozenset({"/health", "/ping", "/metrics", "/metrics/", "/load", "/version"})

logger = logging.getLogger(__name__)
access_logger = logging.getLogger("serving.access")

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_MAX_LOGGED_PATH = 256
_RETRIED = (429, 503)
_STARTS = ("http.response.start", "websocket.http.response.start", "websocket.accept")


class RequestTracking:
    """ASGI middleware, the outermost, that opens a RequestRecord for each request.

    A client's `X-Request-Id` is kept where it is 1 to 128 letters, digits, `.`, `_` or `-`, and
    made here otherwise. vLLM makes its ids of that header, so it is put into the request, and the
    response carries it back, with `X-Adapter-Version` where an adapter answers.
    """

    def __init__(self, app: Any, metrics: ServeMetrics):
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        record = RequestRecord(request_id=_request_id(scope))
        scope = _with_header(scope, b"x-request-id", record.request_id.encode())
        # Middleware further in leaves the principal here.
        scope.setdefault("state", {})
        complete = disconnected = False

        async def watch_send(message: Any) -> None:
            nonlocal complete
            kind = message["type"]
            if kind in _STARTS:
                record.status = message.get("status", 101)
                message = {**message, "headers": _response_headers(message, record)}
            elif kind == "websocket.close" and record.status is None:
                record.status = 403
            await send(message)
            if kind == "http.response.body" and not message.get("more_body", False):
                complete = True

        async def watch_receive() -> Any:
            nonlocal disconnected
            message = await receive()
            if message["type"] == "http.disconnect" and not complete:
                disconnected = True
            return message

        cancelled = False
        is_probe = scope["path"] in PROBE_PATHS
        traced = nullcontext(scope) if is_probe else request_span(scope, record)
        token = current_request.set(record)
        try:
            with traced as traced_scope:
                try:
                    await self._app(traced_scope, watch_receive, watch_send)
                    complete = complete or scope["type"] == "websocket"
                except asyncio.CancelledError:
                    cancelled = True
                    raise
                except Exception:
                    # What uvicorn answers then.
                    record.status = record.status or 500
                    raise
                finally:
                    record.outcome = _outcome(record, complete, disconnected or cancelled)
                    self._end(scope, record)
        finally:
            record.ended = True
            current_request.reset(token)

    def _end(self, scope: Any, record: RequestRecord) -> None:
        while record.on_end:
            callback = record.on_end.pop(0)
            try:
                callback()
            except Exception:
                logger.exception("What follows a request failed")
        principal = scope["state"].get("principal")
        record.tenant = getattr(principal, "tenant", None)
        seconds = time.perf_counter() - record.started
        is_probe = scope["path"] in PROBE_PATHS
        if record.label is not None:
            self._metrics.count_request(record.label, record.outcome or "")
            if record.outcome == "ok":
                self._metrics.observe_request(record.label, seconds)
        if record.outcome in ("client_error", "server_error") and not is_probe:
            status = record.status or 500
            # A stream that broke had begun as a success.
            self._metrics.count_error(record.label or UNKNOWN, status if status >= 400 else 500)
        level = logging.DEBUG if is_probe else logging.INFO
        if access_logger.isEnabledFor(level):
            _log_access(level, scope, record, seconds)


def _outcome(record: RequestRecord, complete: bool, left: bool) -> str:
    if record.status is not None and record.status >= 500:
        return "server_error"
    if record.status is not None and record.status >= 400:
        return "client_error"
    if left:
        return "aborted"
    if record.engine_failed or record.status is None:
        return "server_error"
    return "ok" if complete else "aborted"


def _request_id(scope: Any) -> str:
    given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
    return given.decode() if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def _with_header(scope: Any, name: bytes, value: bytes) -> Any:
    others = [header for header in scope["headers"] if header[0] != name]
    return {**scope, "headers": [*others, (name, value)]}


def _response_headers(message: Any, record: RequestRecord) -> list[tuple[bytes, bytes]]:
    own = {b"x-request-id": record.request_id.encode()}
    if record.reference is not None:
        reference = quote(record.reference, safe="@:+", errors="replace")
        own[b"x-adapter-version"] = reference.encode()
    if record.retry_after is not None and record.status in _RETRIED:
        own[b"retry-after"] = str(record.retry_after).encode()
    theirs = (header for header in message.get("headers", ()) if header[0].lower() not in own)
    return [*theirs, *own.items()]


def _log_access(level: int, scope: Any, record: RequestRecord, seconds: float) -> None:
    # The query is left out: clients put keys there, though they are not accepted there.
    path = quote(scope["path"], safe="/:@+,")[:_MAX_LOGGED_PATH]
    client = scope.get("client")
    fields = {
        "method": scope.get("method", "WEBSOCKET"),
        "path": path,
        "status": record.status,
        "outcome": record.outcome,
        "duration_seconds": round(seconds, 6),
        "prompt_tokens": record.prompt_tokens,
        "generated_tokens": record.generated_tokens,
        "client": client[0] if client else None,
    }
    access_logger.log(
        level,
        "%s %s %s %s in %.3f s, adapter %s, %d + %d tokens",
        *(fields["method"], path, record.status, record.outcome, seconds),
        *(record.reference or record.label, record.prompt_tokens, record.generated_tokens),
        extra={"propulsion_fields": fields},
    )
