"""Refusals in OpenAI's error format, over HTTP and on websockets."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

_TYPES = {
    HTTPStatus.BAD_REQUEST: "BadRequestError",
    HTTPStatus.UNAUTHORIZED: "AuthenticationError",
    HTTPStatus.FORBIDDEN: "PermissionDeniedError",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "RequestTooLargeError",
    HTTPStatus.TOO_MANY_REQUESTS: "RateLimitError",
    HTTPStatus.SERVICE_UNAVAILABLE: "ServiceUnavailableError",
}
_POLICY_VIOLATION = 1008


async def refuse(
    scope: Any,
    receive: Any,
    send: Any,
    status: HTTPStatus,
    message: str,
    headers: Mapping[str, str] | None = None,
) -> None:
    """Answer a request, or the opening of a websocket, with an error."""
    if scope["type"] == "websocket" and "websocket.http.response" not in scope.get(
        "extensions", {}
    ):
        await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": message[:120]})
        return
    # Starlette comes with the server, not with this package's other users.
    from starlette.responses import JSONResponse

    error = {"message": message, "type": _TYPES[status], "param": None, "code": int(status)}
    response = JSONResponse({"error": error}, status_code=int(status), headers=headers)
    await response(scope, receive, send)
