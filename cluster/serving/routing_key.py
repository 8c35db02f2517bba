"""Whose requests should meet on one replica: read from a request, or from what an engine holds."""

import json
import re
from collections.abc import Iterable

from propulsion.errors import PropulsionError
from serving.registry.invocations import ADAPTER_HEADER
from serving.registry.references import parse_model

_ADMIN_PATH = re.compile(r"/admin/v1/adapters/([^/]+)")
# No adapter has such a name. One replica's view is told of all, not now the one's, now another's.
_ADMIN_KEY = "/admin"


def model_key(model: str) -> str | None:
    """The key of a request's `model`: the adapter's name, or the names of a blend.

    All versions and aliases of an adapter share a key: where its alias leads next, its requests
    find the replica that an operator's call has prepared. None for what cannot name an adapter.
    """
    try:
        names = parse_model(model).names
    except PropulsionError:
        return None
    return "+".join(sorted(names))


def request_key(
    path: str, headers: Iterable[tuple[bytes, bytes]], body: bytes, base: str
) -> str | None:
    """The key of an HTTP request, None for the base's and for those that name no model.

    Admin calls for no adapter in particular have a key too, so that one replica answers them.

    Args:
        path: of the request.
        headers: names in lower case.
        body: whole; what is not JSON is the engine's to refuse.
        base: name of the base model.
    """
    admin = _ADMIN_PATH.match(path)
    if admin is None and path.startswith("/admin/"):
        return _ADMIN_KEY
    model = admin.group(1) if admin else _named(headers, body)
    return None if not model or model == base else model_key(model)


def _named(headers: Iterable[tuple[bytes, bytes]], body: bytes) -> str | None:
    for name, value in headers:
        if name == ADAPTER_HEADER:
            return value.decode("latin-1")
    if body.lstrip()[:1] != b"{":
        return None
    try:
        model = json.loads(body).get("model")
    except (ValueError, RecursionError):
        return None
    return model if isinstance(model, str) else None
