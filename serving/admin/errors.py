"""Every error of the admin API in OpenAI's format, whatever app its routes are in."""

from collections.abc import Callable
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from propulsion.errors import (
    AdapterCorruptError,
    AdapterNotFoundError,
    BaseMismatchError,
    ConfigError,
    PropulsionError,
    StoreUnavailableError,
)
from serving.admin.schemas import ErrorBody, ErrorDetail
from serving.registry.refusals import RETRY_AFTER_SECONDS

_TYPES = {
    400: "BadRequestError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    409: "ConflictError",
    422: "UnprocessableEntityError",
    503: "ServiceUnavailableError",
}
_UNUSABLE = (AdapterCorruptError, BaseMismatchError, ConfigError)
_RETRY = {"Retry-After": str(RETRY_AFTER_SECONDS)}

RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody} for status in (400, 401, 403, 404, 409, 422, 429, 500, 503)
}


class AdminRoute(APIRoute):
    """A route whose errors are answered here, not by the app's own handlers."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as error:
                problem = error.errors()[0]
                where = ".".join(str(part) for part in problem["loc"])
                return _response(422, f"{where}: {problem['msg']}", param=where)
            except HTTPException as error:
                return _response(error.status_code, str(error.detail), headers=error.headers)
            except AdapterNotFoundError as error:
                return _response(404, str(error))
            except _UNUSABLE as error:
                return _response(422, str(error))
            except StoreUnavailableError as error:
                return _response(503, str(error), headers=_RETRY)
            except PropulsionError as error:
                return _response(500, str(error))

        return answer


def _response(status: int, message: str, param: str | None = None, headers: Any = None) -> Response:
    kind = _TYPES.get(status, "InternalServerError" if status >= 500 else "BadRequestError")
    detail = ErrorDetail(message=message, type=kind, param=param, code=status)
    return JSONResponse(ErrorBody(error=detail).model_dump(), status, headers)
