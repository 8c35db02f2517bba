"""A server without keys answers programs of this machine, and not the web pages open on it."""

from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from serving.config import is_loopback
from serving.security.auth import MALFORMED_PATH
from serving.security.principal import LOCAL, run_as
from serving.security.refusals import refuse
from serving.security.routes import Access, access_of

_FOREIGN = (
    "Without API keys this server answers only requests addressed to localhost, and none from "
    "pages of other sites: start it with --api-key or --keys-file."
)


class LocalOnly:
    """ASGI middleware for a server that listens on loopback and asks for no key.

    Any page that a browser on this machine shows can send requests to loopback, or have its own
    name resolve to it (DNS rebinding). Their Origin and Host headers give them away.
    """

    def __init__(self, app: Any, *, root_path: str = ""):
        self._app = app
        self._root_path = root_path

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        access = access_of(scope, root_path=self._root_path)
        if access is Access.MALFORMED:
            await refuse(scope, receive, send, HTTPStatus.BAD_REQUEST, MALFORMED_PATH)
            return
        if access is not Access.OPEN and not _is_local(scope):
            await refuse(scope, receive, send, HTTPStatus.FORBIDDEN, _FOREIGN)
            return
        await run_as(LOCAL, self._app, scope, receive, send)


def _is_local(scope: Any) -> bool:
    for name, value in scope["headers"]:
        text = value.decode("latin-1")
        if name == b"host" and not _is_local_address(f"//{text}"):
            return False
        if name == b"origin" and not _is_local_address(text):
            return False
    return True


def _is_local_address(url: str) -> bool:
    try:
        host = urlsplit(url).hostname
    except ValueError:
        return False
    return host is not None and is_loopback(host)
