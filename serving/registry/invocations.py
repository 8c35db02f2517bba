"""SageMaker's route answers by the adapter that the body names, as every other route does.

vLLM's /invocations takes the model from SageMaker's header alone and forgets the body's `model`, so
the base would silently answer for whatever adapter was asked for.
"""

import json
from http import HTTPStatus
from typing import Any

from serving.security.refusals import refuse

ADAPTER_HEADER = b"x-amzn-sagemaker-adapter-identifier"
_PATH = "/invocations"
_MALFORMED = "The request body is not JSON that can be read."


class InvocationModel:
    """ASGI middleware that puts the body's `model` into SageMaker's header, unless it is there.

    Reads the whole body, so it belongs inside the limit of its size.
    """

    def __init__(self, app: Any):
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or not scope["path"].endswith(_PATH):
            await self._app(scope, receive, send)
            return
        body = await whole_body(receive)
        if body is None:
            return
        try:
            asked = json.loads(body)
        except (ValueError, RecursionError):
            # What vLLM reads twice, it takes for a failure of its own the second time.
            await refuse(scope, receive, send, HTTPStatus.BAD_REQUEST, _MALFORMED)
            return
        model = asked.get("model") if isinstance(asked, dict) else None
        if not isinstance(model, str | None):
            message = "`model` must be a string."
            await refuse(scope, receive, send, HTTPStatus.BAD_REQUEST, message)
            return
        if model and all(name != ADAPTER_HEADER for name, _ in scope["headers"]):
            # No adapter's name has other characters, so what is replaced is not found either way.
            value = model.encode("latin-1", errors="replace")
            scope = {**scope, "headers": [*scope["headers"], (ADAPTER_HEADER, value)]}
        await self._app(scope, _replayed(body, receive), send)


async def whole_body(receive: Any) -> bytes | None:
    """The whole body, or None if the client left before its end."""
    parts = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


def _replayed(body: bytes, receive: Any) -> Any:
    unread = True

    async def replay() -> Any:
        nonlocal unread
        if unread:
            unread = False
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return replay
