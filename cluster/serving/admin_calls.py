"""The admin API's calls that concern every replica; all others go to the adapter's home."""

import json
import re
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import Any

from cluster.serving.forwarding import forwarded_request
from cluster.serving.messages import ForwardedRequest, WholeAnswer
from serving.registry.invocations import whole_body
from serving.security.refusals import refuse

AskAll = Callable[[ForwardedRequest], Awaitable[Sequence[WholeAnswer]]]
Forget = Callable[[str], Awaitable[None]]

_STATUS = "/admin/v1/status"
_LEAVING = re.compile(r"/admin/v1/adapters/[^/]+/(unload|unpin)")
_POINTING = re.compile(r"/admin/v1/adapters/([^/]+)/(aliases|splits)/[^/]+")
_NOBODY = "No replica could answer; try again in a few seconds."


class AdminCalls:
    """ASGI app that sends some admin calls to all replicas, and passes everything else on.

    Unloading and unpinning are done on each replica, the status is of all of them together, and
    no replica goes on with what an alias meant before its change has been answered.

    Args:
        app: the Forwarder.
        ask_all: has every replica answer a request.
        forget: has every replica ask the store about an adapter again.
        base: name of the base model.
    """

    def __init__(self, app: Any, ask_all: AskAll, forget: Forget, base: str):
        self._app = app
        self._ask_all = ask_all
        self._forget = forget
        self._base = base

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path, method = scope["path"], scope["method"]
        pointing = _POINTING.fullmatch(path)
        if pointing and method in ("PUT", "DELETE"):
            await self._point(pointing.group(1), scope, receive, send)
        elif (path == _STATUS and method == "GET") or (
            _LEAVING.fullmatch(path) and method == "POST"
        ):
            await self._all(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _point(self, name: str, scope: Any, receive: Any, send: Any) -> None:
        async def send_afterwards(message: Any) -> None:
            if message["type"] == "http.response.start" and message["status"] < 300:
                await self._forget(name)
            await send(message)

        await self._app(scope, receive, send_afterwards)

    async def _all(self, scope: Any, receive: Any, send: Any) -> None:
        body = await whole_body(receive)
        if body is None:
            return
        answers = await self._ask_all(forwarded_request(scope, body, self._base))
        if not answers:
            await refuse(scope, receive, send, HTTPStatus.SERVICE_UNAVAILABLE, _NOBODY)
            return
        # One replica's refusal must not hide behind the others' success.
        answer = max(answers, key=lambda answer: answer.status)
        content = answer.body
        if scope["path"] == _STATUS and answer.status == HTTPStatus.OK:
            content = _merged_status([json.loads(answer.body) for answer in answers])
        headers = [pair for pair in answer.headers if pair[0] != b"content-length"]
        headers.append((b"content-length", str(len(content)).encode()))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": content})


def _merged_status(statuses: Sequence[dict[str, Any]]) -> bytes:
    merged = dict(statuses[0])
    for part in ("slots", "host"):
        merged[part] = {
            name: sum(status[part][name] for status in statuses) for name in merged[part]
        }
    merged["uptime_seconds"] = max(status["uptime_seconds"] for status in statuses)
    merged["engine"] = {
        "healthy": all(status["engine"]["healthy"] for status in statuses),
        "restarts": sum(status["engine"]["restarts"] for status in statuses),
    }
    return json.dumps(merged).encode()
