"""API keys: whoever sends one is known by it, and without one little is answered."""

from http import HTTPStatus
from typing import Any

from serving.security.keys import KeyRing
from serving.security.principal import Principal, run_as
from serving.security.refusals import refuse
from serving.security.routes import Access, access_of

ANONYMOUS = Principal(
    key_id="(none)", tenant="(none)", role="inference", adapters=(), may_use_base=False
)
"""Who asks for an open route of a server with keys: someone who may do nothing else."""

MALFORMED_PATH = "No route has such a path: send it plain, without empty, `.` or `..` parts."
_WRONG = "Missing or wrong API key: send `Authorization: Bearer <key>`."
_EXPIRED = "This API key has expired: ask the operator for a new one."
_NOT_ADMIN = "This route needs an admin key."
_NOT_BASE = "This route needs a key that may use the base model."


class ApiKeyAuth:
    """ASGI middleware that asks for `Authorization: Bearer <key>` and tells who sent it.

    The Principal goes to `current_principal` and to `scope["state"]["principal"]`. Guards every
    path that `serving.security.routes` does not open: vLLM's own guards only some prefixes, and
    generation is also reachable outside them (`/invocations`). Keys in a query string or in a
    websocket's subprotocol are not looked at: both end up in the logs of proxies.
    """

    def __init__(
        self, app: Any, keys: KeyRing, *, metrics_are_open: bool = True, root_path: str = ""
    ):
        self._app = app
        self._keys = keys
        self._metrics_are_open = metrics_are_open
        self._root_path = root_path

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        access = access_of(
            scope, root_path=self._root_path, metrics_are_open=self._metrics_are_open
        )
        if access is Access.MALFORMED:
            await refuse(scope, receive, send, HTTPStatus.BAD_REQUEST, MALFORMED_PATH)
            return
        if access is Access.OPEN or _is_preflight(scope, access):
            await run_as(ANONYMOUS, self._app, scope, receive, send)
            return
        await self._keys.refresh()
        key = self._keys.find(_given_key(scope))
        if key is None or self._keys.has_expired(key):
            message = _WRONG if key is None else _EXPIRED
            headers = {"WWW-Authenticate": "Bearer"}
            await refuse(scope, receive, send, HTTPStatus.UNAUTHORIZED, message, headers)
            return
        scope.setdefault("state", {})["principal"] = key.principal
        reason = _forbidden(access, key.principal)
        if reason:
            await refuse(scope, receive, send, HTTPStatus.FORBIDDEN, reason)
            return
        await run_as(key.principal, self._app, scope, receive, send)


def _forbidden(access: Access, principal: Principal) -> str | None:
    """Why the principal may not use such a route, or None."""
    if access is Access.ADMIN and not principal.is_admin:
        return _NOT_ADMIN
    if access is Access.BASE and not principal.may_use_base:
        return _NOT_BASE
    return None


def _given_key(scope: Any) -> bytes:
    """The key in the request, or nothing; of two headers neither counts."""
    values = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(values) != 1:
        return b""
    scheme, _, key = values[0].partition(b" ")
    return key.strip() if scheme.lower() == b"bearer" else b""


def _is_preflight(scope: Any, access: Access) -> bool:
    """Whether a browser asks if another origin's page may use an inference route.

    It cannot send a key with that; vLLM's CORS middleware answers, before any route.
    """
    names = {name for name, _ in scope["headers"]}
    return (
        access is Access.INFERENCE
        and scope.get("method") == "OPTIONS"
        and {b"origin", b"access-control-request-method"} <= names
    )
