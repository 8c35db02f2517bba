"""Passes a request on to a replica, to another one if that is lost before it has said anything."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from http import HTTPStatus
from typing import Any

from ray.exceptions import ObjectLostError, RayActorError, WorkerCrashedError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from cluster.serving.config import ClusterServeConfig
from cluster.serving.messages import (
    AnswerHead,
    AnswerPart,
    ForwardedRequest,
    ReplicaLostError,
)
from cluster.serving.metrics import ClusterMetrics
from cluster.serving.routing_key import request_key
from serving.observability.metrics import BASE, BLEND, OTHER, UNKNOWN, ServeMetrics
from serving.observability.record import RequestRecord, current_request
from serving.registry.invocations import whole_body
from serving.security.principal import current_principal
from serving.security.refusals import refuse

logger = logging.getLogger(__name__)

Ask = Callable[[ForwardedRequest], Any]

# The key is the gateway's affair; lengths and connections are those of another hop.
_NOT_FORWARDED = frozenset({b"authorization", b"connection", b"transfer-encoding"})
_LOST = (ReplicaLostError, RayActorError, WorkerCrashedError, ObjectLostError)
_SPECIAL_LABELS = frozenset({BASE, BLEND, OTHER, UNKNOWN})
_BUSY = "All replicas are busy, and too many requests wait for one; try again in a few seconds."
_NONE = "No replica could answer; try again in a few seconds."
_BROKEN = "The replica that was answering is lost, and its answer ends here; ask again."
_RETRY_SECONDS = 5
_PAUSE_SECONDS = 0.25


class _ClientLeftError(Exception):
    """Nobody reads the answer any more."""


class _NoReplicaError(Exception):
    """No replica took the request in time."""


class Forwarder:
    """ASGI app that answers what replicas answer.

    Runs within RequestTracking and the guards, so that a RequestRecord and a principal are there.

    Args:
        ask: sends a ForwardedRequest to a replica; an asynchronous iterator of AnswerParts with a
            method `cancel`.
        config: how often to retry, how long to wait.
        serve_metrics: of requests.
        metrics: of replicas.
        on_replica_lost: called when one was.
    """

    def __init__(
        self,
        ask: Ask,
        config: ClusterServeConfig,
        serve_metrics: ServeMetrics,
        metrics: ClusterMetrics,
        on_replica_lost: Callable[[], None] = lambda: None,
    ):
        self._ask = ask
        self._config = config
        self._serve_metrics = serve_metrics
        self._metrics = metrics
        self._on_replica_lost = on_replica_lost

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1003, "reason": "HTTP only"})
            return
        body = await whole_body(receive)
        if body is None:
            return
        record = current_request.get() or RequestRecord()
        request = forwarded_request(scope, body, self._config.model_name)
        leaving = asyncio.ensure_future(_until_left(receive))
        try:
            await self._answer(request, record, leaving, scope, receive, send)
        except _ClientLeftError:
            pass
        finally:
            leaving.cancel()

    async def _answer(
        self,
        request: ForwardedRequest,
        record: RequestRecord,
        leaving: asyncio.Future[None],
        scope: Any,
        receive: Any,
        send: Any,
    ) -> None:
        num_retries = 0
        give_up_at = time.monotonic() + self._config.queue_timeout_seconds
        while True:
            taken_by: str | None = None
            head: AnswerHead | None = None
            try:
                async with aclosing(self._parts(request, leaving)) as parts:
                    async for part in parts:
                        taken_by = part.replica
                        head = head or part.head
                        await self._pass_on(part, record, send, has_begun=head is not None)
                return
            except (BackPressureError, DeploymentUnavailableError):
                await self._refuse(record, scope, receive, send, _BUSY)
                return
            except _NoReplicaError:
                break
            except _LOST as error:
                logger.warning("Replica %s is lost: %s", taken_by, _first_line(error))
                self._on_replica_lost()
                if head is not None:
                    await self._break_off(head, record, request.path, send)
                    return
            if taken_by is None:
                # Nobody has begun with it: it waits, as if nobody had been asked.
                if time.monotonic() > give_up_at:
                    break
                await asyncio.sleep(_PAUSE_SECONDS)
            else:
                if num_retries == self._config.max_retries:
                    break
                num_retries += 1
                self._metrics.count_retry()
                give_up_at = time.monotonic() + self._config.queue_timeout_seconds
                request = replace(request, avoid=request.avoid | {taken_by})
            waited = time.perf_counter() - record.started
            request = replace(request, waited_seconds=max(0.0, waited))
        await self._refuse(record, scope, receive, send, _NONE)

    async def _pass_on(
        self, part: AnswerPart, record: RequestRecord, send: Any, *, has_begun: bool
    ) -> None:
        record.prompt_tokens = part.prompt_tokens
        record.generated_tokens = part.generated_tokens
        record.engine_failed = part.engine_failed
        if part.engine_failed and part.is_last:
            self._metrics.count_failure()
        if part.head is not None:
            self._note(part.head, record)
            await send(_start(part.head))
        if has_begun and (part.body or part.is_last):
            await send(_chunk(part.body, more=not part.is_last))

    async def _parts(
        self, request: ForwardedRequest, leaving: asyncio.Future[None]
    ) -> AsyncGenerator[AnswerPart, None]:
        stream = self._ask(request)
        timeout: float | None = self._config.queue_timeout_seconds
        try:
            while True:
                step = asyncio.ensure_future(anext(stream))
                await asyncio.wait(
                    {step, leaving}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED
                )
                if not step.done():
                    step.cancel()
                    raise _ClientLeftError if leaving.done() else _NoReplicaError
                # The first part says that a replica has the request; from there it takes its time.
                timeout = None
                try:
                    part: AnswerPart = step.result()
                except StopAsyncIteration:
                    return
                yield part
        finally:
            stream.cancel()

    def _note(self, head: AnswerHead, record: RequestRecord) -> None:
        record.reference = head.reference
        if head.was_resident is not None:
            self._metrics.count_affinity(head.was_resident)
        if head.label is None or head.label in _SPECIAL_LABELS - {OTHER}:
            record.label = head.label
        else:
            # Each replica names other adapters; the gateway's own choice bounds their number.
            name = (head.reference or "").partition("@")[0]
            record.label = self._serve_metrics.adapter_label(name) if name else OTHER

    async def _refuse(
        self, record: RequestRecord, scope: Any, receive: Any, send: Any, message: str
    ) -> None:
        self._metrics.count_failure()
        record.label = record.label or UNKNOWN
        headers = {"Retry-After": str(_RETRY_SECONDS)}
        await refuse(scope, receive, send, HTTPStatus.SERVICE_UNAVAILABLE, message, headers)

    async def _break_off(
        self, head: AnswerHead, record: RequestRecord, path: str, send: Any
    ) -> None:
        self._metrics.count_failure()
        record.engine_failed = True
        content_type = dict(head.headers).get(b"content-type", b"")
        if not content_type.startswith(b"text/event-stream"):
            # Whatever we sent would be taken for the answer; a cut connection is not.
            raise ReplicaLostError(_BROKEN)
        await send(_chunk(broken_stream_event(path), more=False))


def forwarded_request(scope: Any, body: bytes, base: str) -> ForwardedRequest:
    """What replicas are sent of an HTTP request, within its RequestRecord and principal.

    Args:
        scope: ASGI's.
        body: whole.
        base: name of the base model.
    """
    record = current_request.get() or RequestRecord()
    headers = tuple((name, v) for name, v in scope["headers"] if name not in _NOT_FORWARDED)
    client = scope.get("client")
    return ForwardedRequest(
        method=scope["method"],
        path=scope["path"],
        query_string=scope.get("query_string", b""),
        headers=headers,
        client=tuple(client) if client else None,
        body=body,
        principal=current_principal.get(),
        adapter=request_key(scope["path"], headers, body, base),
        waited_seconds=max(0.0, time.perf_counter() - record.started),
    )


def broken_stream_event(path: str) -> bytes:
    """The last event of a stream that cannot go on, in the format of the API that `path` is of."""
    if path == "/v1/messages":
        error: dict[str, Any] = {"type": "api_error", "message": _BROKEN}
        return _event({"type": "error", "error": error}, "error")
    code = int(HTTPStatus.SERVICE_UNAVAILABLE)
    error = {"message": _BROKEN, "type": "ServiceUnavailableError", "param": None, "code": code}
    return _event({"error": error}) + b"data: [DONE]\n\n"


def _event(data: dict[str, Any], name: str | None = None) -> bytes:
    kind = f"event: {name}\n" if name else ""
    return f"{kind}data: {json.dumps(data)}\n\n".encode()


def _start(head: AnswerHead) -> dict[str, Any]:
    return {"type": "http.response.start", "status": head.status, "headers": list(head.headers)}


def _chunk(body: bytes, *, more: bool) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more}


async def _until_left(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
