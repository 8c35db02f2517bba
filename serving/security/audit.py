"""Records who called the admin API, and who was turned away."""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from serving.security.audit_log import AuditLog
from serving.security.bucket import Bucket
from serving.security.key_text import loggable
from serving.security.routes import Access, access_of

_REFUSED = (401, 403)
_MAX_BODY_BYTES = 64 * 1024
_MAX_TEXT = 512
_MAX_NAME = 128
_MAX_WEIGHTS = 64
# Strangers must not be able to fill the disk: so many lines of theirs at once, and then a second.
_STRANGERS_AT_ONCE, _STRANGERS_PER_SECOND = 200, 10


class Audit:
    """ASGI middleware that writes one line for every admin call and every refused request.

    Of a body it keeps the fields `version`, `weights` and `pin` of an admin call, and nothing
    else; of headers, nothing. Refusals of callers without a key are thinned out when there are
    very many, and the next line says how many were left out.
    """

    def __init__(
        self,
        app: Any,
        log: AuditLog,
        *,
        request_id: Callable[[], str | None] = lambda: None,
        root_path: str = "",
        clock: Callable[[], float] = time.monotonic,
    ):
        """Watch `app`.

        Args:
            app: sets `scope["state"]["principal"]` once it knows who asks.
            log: where lines go.
            request_id: called in the request's context for its id.
            root_path: the prefix that the app cuts off paths.
            clock: seconds from any start.
        """
        self._app = app
        self._log = log
        self._request_id = request_id
        self._root_path = root_path
        self._clock = clock
        self._strangers = Bucket(_STRANGERS_AT_ONCE, _STRANGERS_PER_SECOND, clock())
        self._left_out = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        access = access_of(scope, root_path=self._root_path)
        is_admin_call = access in (Access.ADMIN, Access.MALFORMED)
        begun = self._clock()
        status: int | None = None
        body = bytearray()

        async def watched_send(message: Any) -> None:
            nonlocal status
            status = _status(message) or status
            await send(message)

        async def watched_receive() -> Any:
            message = await receive()
            if len(body) <= _MAX_BODY_BYTES:
                body.extend(message.get("body", b"")[: _MAX_BODY_BYTES + 1 - len(body)])
            return message

        try:
            inner = watched_receive if access is Access.ADMIN else receive
            await self._app(scope, inner, watched_send)
        except Exception:
            status = status or 500
            raise
        finally:
            if is_admin_call or status in _REFUSED:
                self._record(scope, status, self._clock() - begun, bytes(body))

    def _record(self, scope: Any, status: int | None, seconds: float, body: bytes) -> None:
        principal = scope.get("state", {}).get("principal")
        if principal is None:
            now = self._clock()
            if self._strangers.level(now) < 1:
                self._left_out += 1
                return
            self._strangers.spend(1, now)
        client = scope.get("client")
        record = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "request_id": self._request_id(),
            "key_id": principal.key_id if principal else None,
            "tenant": principal.tenant if principal else None,
            "method": _shortened(scope.get("method", "WEBSOCKET")),
            "path": loggable(scope["path"])[:_MAX_TEXT],
            "status": status,
            "client": _shortened(str(client[0])) if client else None,
            "duration_seconds": round(seconds, 6),
        }
        record |= _change(body)
        if self._left_out:
            record["left_out"] = self._left_out
            self._left_out = 0
        self._log.write(record)


def _status(message: Any) -> int | None:
    kind = message["type"]
    if kind in ("http.response.start", "websocket.http.response.start"):
        return message["status"]
    return {"websocket.accept": 101, "websocket.close": 403}.get(kind)


def _change(body: bytes) -> dict[str, Any]:
    """What an admin call asked to change, if its body is JSON that says so."""
    if not body or len(body) > _MAX_BODY_BYTES:
        return {}
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(content, dict):
        return {}
    change: dict[str, Any] = {}
    if isinstance(version := content.get("version"), str):
        change["version"] = _shortened(version)
    if isinstance(pin := content.get("pin"), bool):
        change["pin"] = pin
    weights = content.get("weights")
    if isinstance(weights, dict) and len(weights) <= _MAX_WEIGHTS:
        change["weights"] = {
            _shortened(name): weight for name, weight in weights.items() if _is_number(weight)
        }
    return change


def _shortened(text: str) -> str:
    return loggable(text)[:_MAX_NAME]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1 << 53
