"""API keys: without one of them, nothing but health and metrics is answered."""

import hashlib
import hmac
from collections.abc import Iterable
from typing import Any

# Probes and scrapers carry no key; what they read names adapters at most.
OPEN_PATHS = frozenset({"/health", "/ping", "/metrics", "/metrics/"})


class ApiKeyAuth:
    """ASGI middleware that asks for `Authorization: Bearer <key>`.

    Guards every path but OPEN_PATHS: vLLM's own guards only some prefixes, and generation is also
    reachable outside them (`/invocations`).
    """

    def __init__(self, app: Any, keys: Iterable[str]):
        self._app = app
        self._digests = [_digest(key.encode()) for key in keys]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan" or scope["path"] in OPEN_PATHS or self._allows(scope):
            await self._app(scope, receive, send)
            return
        # Starlette comes with the server, not with this module's other users.
        from starlette.responses import JSONResponse

        error = {
            "message": "Missing or wrong API key: send `Authorization: Bearer <key>`.",
            "type": "AuthenticationError",
            "param": None,
            "code": 401,
        }
        response = JSONResponse(
            {"error": error}, status_code=401, headers={"WWW-Authenticate": "Bearer"}
        )
        await response(scope, receive, send)

    def _allows(self, scope: Any) -> bool:
        header = next((v for k, v in scope["headers"] if k == b"authorization"), b"")
        scheme, _, key = header.partition(b" ")
        given = _digest(key)
        # Every key is compared, so that the time taken tells nothing.
        matches = [hmac.compare_digest(given, digest) for digest in self._digests]
        return scheme.lower() == b"bearer" and any(matches)


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
