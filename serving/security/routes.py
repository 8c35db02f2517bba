"""Which route asks for what: open, a key, a key that may use the base, or an admin key.

What no list names is for admins, so that a route that vLLM adds is closed until someone opens it.
"""

import re
from collections.abc import Mapping
from enum import Enum
from typing import Any


class Access(Enum):
    """What a route asks of its caller."""

    OPEN = "no key"
    INFERENCE = "any key"
    BASE = "a key that may use the base model"
    ADMIN = "an admin key"
    MALFORMED = "a path that no route has"


INFERENCE_PATHS = frozenset(
    {
        "/classify",
        "/cohere/v2/chat",
        "/detokenize",
        "/docs",
        "/docs/oauth2-redirect",
        "/generative_scoring",
        "/invocations",
        "/load",
        "/openapi.json",
        "/pooling",
        "/redoc",
        "/rerank",
        "/score",
        "/tokenize",
        "/v1/audio/transcriptions",
        "/v1/audio/translations",
        "/v1/chat/completions",
        "/v1/chat/completions/batch",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/messages",
        "/v1/messages/count_tokens",
        "/v1/models",
        "/v1/rerank",
        # Not /v1/responses/{id}: vLLM keeps answers without saying whose they are.
        "/v1/responses",
        "/v1/score",
        "/v1/systemone",
        "/v2/embed",
        "/v2/rerank",
        "/version",
    }
)
# These never ask the registry who may use which model: they run the base model.
BASE_PATHS = frozenset({"/v1/realtime"})

_OPEN_METHODS = {
    "/health": ("GET", "HEAD"),
    "/ping": ("GET", "HEAD", "POST"),
    "/console": ("GET", "HEAD"),
}
_METRICS = ("/metrics", "/metrics/")
_CARD = re.compile(r"/v1/models/[^/]+")
# No empty, `.` or `..` part and no character that one reader of paths may take for another's
# separator or end; `%` would be the mark of double encoding.
_PATH = re.compile(r"(?=/)(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._~!$&'()*+,;=:@-]+)*/?")
_ENCODED_SEPARATOR = re.compile(rb"%(?:2f|5c)", re.IGNORECASE)


def access_of(
    scope: Mapping[str, Any], *, root_path: str = "", metrics_are_open: bool = True
) -> Access:
    """What the route that an ASGI scope asks for demands.

    Args:
        scope: of type "http" or "websocket".
        root_path: the prefix that the app cuts off paths, over the scope's own.
        metrics_are_open: whether /metrics needs no key.
    """
    path = scope["path"]
    if not _PATH.fullmatch(path) or _ENCODED_SEPARATOR.search(scope.get("raw_path") or b""):
        return Access.MALFORMED
    path = _routed(path, root_path or scope.get("root_path", ""))
    # A websocket's scope has no method; it opens with GET.
    method = scope.get("method", "GET")
    if path in _METRICS:
        is_open = metrics_are_open and method in ("GET", "HEAD")
        return Access.OPEN if is_open else Access.ADMIN
    route = "/console" if path.startswith("/console/") else path
    if scope["type"] == "http" and method in _OPEN_METHODS.get(route, ()):
        return Access.OPEN
    if path in BASE_PATHS:
        return Access.BASE
    if path in INFERENCE_PATHS or _CARD.fullmatch(path):
        return Access.INFERENCE
    return Access.ADMIN


def _routed(path: str, root_path: str) -> str:
    """The path as Starlette's router matches it."""
    if root_path and path.startswith(root_path):
        rest = path[len(root_path) :]
        if not rest or rest[0] == "/":
            return rest
    return path
