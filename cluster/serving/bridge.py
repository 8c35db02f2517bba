"""Runs an ASGI app for a request that came by a call, and hands its answer over in parts."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from cluster.serving.messages import AnswerHead, AnswerPart, ForwardedRequest
from serving.observability.record import RequestRecord, current_request
from serving.security.principal import run_as

# A client that leaves owes the tokens that its gateway knows of by then.
_REPORT_SECONDS = 1.0


class AsForwarded:
    """ASGI middleware within RequestTracking: who asks, and since when, is what the gateway says.

    Leaves the request's record in the scope's state, where `answer_parts` finds it.
    """

    def __init__(self, app: Any):
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request: ForwardedRequest = scope["state"]["forwarded"]
        record = current_request.get() or RequestRecord()
        record.started -= request.waited_seconds
        scope["state"]["record"] = record
        await run_as(request.principal, self._app, scope, receive, send)


@dataclass
class _Answer:
    """What the app has sent and nobody has fetched."""

    head: dict[str, Any] | None = None
    body: bytes = b""
    is_last: bool = False


async def answer_parts(
    app: Any, request: ForwardedRequest, replica: str
) -> AsyncGenerator[AnswerPart, None]:
    """The answer of an ASGI app. Closed early, the app is told that its client has left.

    The head comes with the first bytes of the body, so that until then nothing is promised.

    Args:
        app: RequestTracking around AsForwarded.
        request: what to ask it.
        replica: the name to sign with.

    Raises:
        Exception: what the app raised.
    """
    news, gone = asyncio.Event(), asyncio.Event()
    pending = _Answer()
    unread = [{"type": "http.request", "body": request.body, "more_body": False}]

    async def receive() -> Any:
        if unread:
            return unread.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            pending.head = message
        elif message["type"] == "http.response.body":
            pending.body += message.get("body", b"")
            pending.is_last = not message.get("more_body", False)
            news.set()

    state: dict[str, Any] = {"forwarded": request}
    running = asyncio.create_task(app(_scope(request, state), receive, send))
    running.add_done_callback(lambda _: news.set())
    try:
        is_over = False
        while not is_over:
            try:
                async with asyncio.timeout(_REPORT_SECONDS):
                    await news.wait()
            except TimeoutError:
                yield _part(replica, state, _Answer())
                continue
            news.clear()
            if running.done() and (error := running.exception()):
                raise error
            is_over = pending.is_last or running.done()
            taken, pending.head, pending.body = _Answer(pending.head, pending.body), None, b""
            taken.is_last = is_over
            yield _part(replica, state, taken)
        # What it has still to count, it counts now.
        gone.set()
        await running
    finally:
        gone.set()
        if not running.done():
            running.cancel()
            await asyncio.wait({running})


def _part(replica: str, state: dict[str, Any], answer: _Answer) -> AnswerPart:
    record: RequestRecord = state.get("record") or RequestRecord()
    head = None
    if answer.head is not None:
        head = AnswerHead(
            status=answer.head["status"],
            headers=tuple((bytes(name), bytes(value)) for name, value in answer.head["headers"]),
            label=record.label,
            reference=record.reference,
            was_resident=record.was_resident,
        )
    return AnswerPart(
        replica=replica,
        head=head,
        body=answer.body,
        prompt_tokens=record.prompt_tokens,
        generated_tokens=record.generated_tokens,
        engine_failed=record.engine_failed,
        is_last=answer.is_last,
    )


def _scope(request: ForwardedRequest, state: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": "http",
        "path": request.path,
        "raw_path": request.path.encode(),
        "query_string": request.query_string,
        "root_path": "",
        "headers": list(request.headers),
        "client": request.client,
        "server": None,
        "state": state,
    }
