"""How a request whose adapter cannot be served is answered.

Details name files, keys and other adapters: they go to the log, not to clients.
"""

import logging
from dataclasses import dataclass
from http import HTTPStatus

from propulsion.errors import (
    AdapterCorruptError,
    AdapterNotFoundError,
    BaseMismatchError,
    ConfigError,
    HeadNotServedError,
    PropulsionError,
)

RETRY_AFTER_SECONDS = 5
_SHOWN = 256

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Refusal:
    """An error answer.

    Attributes:
        status: HTTP status.
        type: the `type` of OpenAI's error format.
        message: for the client.
        retry_after: seconds after which the same request may succeed, for the header; else None.
    """

    status: HTTPStatus
    type: str
    message: str
    retry_after: int | None = None


def not_found(model: str, base: str | None) -> Refusal:
    """The answer for what does not exist, or does not for this client: one text for both.

    Args:
        model: what was asked for.
        base: the base model's name, where the client may know it.
    """
    known = f"the base model `{base}` nor an adapter in the store" if base else None
    reason = f": it is neither {known}" if known else ""
    message = f"The model `{_short(model)}` does not exist{reason}."
    return Refusal(HTTPStatus.NOT_FOUND, "NotFoundError", message)


def malformed(error: ConfigError) -> Refusal:
    """The answer for a blend that cannot be read; the error is about the client's own text."""
    return Refusal(HTTPStatus.BAD_REQUEST, "BadRequestError", f"`model`: {error}")


def headless(base: str) -> Refusal:
    """The answer where the base would have to classify, and has no head."""
    message = (
        f"The base model `{base}` has no classification head: name an adapter that was trained to "
        "classify."
    )
    return Refusal(HTTPStatus.BAD_REQUEST, "BadRequestError", message)


def refusal(model: str, base: str | None, error: PropulsionError) -> Refusal:
    """The answer for an error of resolving or loading what `model` names."""
    if isinstance(error, AdapterNotFoundError):
        return not_found(model, base)
    logger.warning("Refused a request for %r: %s", _short(model), error)
    shown = _short(model)
    if isinstance(error, BaseMismatchError):
        # 400: this server can never run it, and clients retry 409 and 5xx.
        message = f"The adapter `{shown}` was not made for the base model served here."
        return Refusal(HTTPStatus.BAD_REQUEST, "BadRequestError", message)
    if isinstance(error, HeadNotServedError):
        message = f"The adapter `{shown}` cannot be served here: {error}."
        return Refusal(HTTPStatus.BAD_REQUEST, "BadRequestError", message)
    if isinstance(error, ConfigError):
        message = f"The adapter `{shown}` is of a kind, or a blend, that is not served here."
        return Refusal(HTTPStatus.BAD_REQUEST, "BadRequestError", message)
    if isinstance(error, AdapterCorruptError):
        # 500: the request is right, our copy of the adapter is not; the operator must act.
        message = f"The adapter `{shown}` is damaged in the store and cannot be served."
        return Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "InternalServerError", message)
    message = f"The adapter `{shown}` could not be loaded now; try again."
    return Refusal(
        HTTPStatus.SERVICE_UNAVAILABLE, "ServiceUnavailableError", message, RETRY_AFTER_SECONDS
    )


def _short(model: str) -> str:
    return model if len(model) <= _SHOWN else model[:_SHOWN] + "…"
