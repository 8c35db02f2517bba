"""File systems of fsspec, opened so that an absent one is told within seconds."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from adapters.backends.location import protocol_of, without_credentials
from propulsion.errors import ConfigError, PropulsionError, StoreUnavailableError

S3_PROTOCOLS = ("s3", "s3a")

_CONNECT_SECONDS = 3
_READ_SECONDS = 6
_ATTEMPTS = 2
_PRECONDITION_CODES = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}
_CREDENTIALS_HINT = (
    "Check that the credentials (for S3 the usual AWS_* environment) are there, have not expired "
    "and allow it"
)
_NETWORK_HINT = (
    "Check the URL, for S3 AWS_ENDPOINT_URL too, and that the store is up; then try again"
)


def open_filesystem(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path in it.

    Raises:
        ConfigError: the driver is not installed, or the URL is malformed.
    """
    from fsspec.core import url_to_fs  # type: ignore[import-untyped]

    protocol, shown = protocol_of(url), without_credentials(url)
    try:
        filesystem, root = url_to_fs(url, **_options(protocol))
    except ImportError as error:
        package = "propulsion[s3]" if protocol in S3_PROTOCOLS else f"'fsspec[{protocol}]'"
        raise ConfigError(
            f"{shown} needs a driver that is not installed ({error}): pip install {package}"
        ) from error
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{shown} cannot be opened: {without_credentials(str(error))}") from error
    if protocol in S3_PROTOCOLS:
        # It would multiply with the client's own attempts.
        filesystem.retries = 1
    parts = root.strip("/").split("/")
    if protocol in S3_PROTOCOLS and not parts[0]:
        raise ConfigError(f"{shown} names no bucket: write s3://bucket/prefix.")
    if any(part in (".", "..") for part in parts) or (len(parts) > 1 and "" in parts):
        raise ConfigError(f"{shown} holds an empty, '.' or '..' part: give the plain path.")
    return filesystem, root.rstrip("/")


@contextmanager
def reaching(location: str, what: str = "The adapter store") -> Iterator[None]:
    """Turn what a driver raises into StoreUnavailableError, but for FileNotFound and FileExists.

    Where a condition on a write was not met, FileExistsError is raised. `what` begins the message.
    """
    try:
        yield
    except PropulsionError:
        raise
    # Drivers raise errors of their own HTTP clients and clouds, which have no common base.
    except Exception as error:
        code = _error_code(error)
        if code in _PRECONDITION_CODES or isinstance(error, FileExistsError):
            raise FileExistsError(str(error)) from error
        if isinstance(error, FileNotFoundError) and code != "NoSuchBucket":
            raise
        text = without_credentials(f"{error}".strip() or type(error).__name__)
        refused = isinstance(error, PermissionError) or "Credential" in type(error).__name__
        raise StoreUnavailableError(
            f"{what} {location} cannot be used now: {text.rstrip('.')}. "
            f"{_CREDENTIALS_HINT if refused else _NETWORK_HINT}."
        ) from error


def _options(protocol: str) -> dict[str, Any]:
    if protocol not in S3_PROTOCOLS:
        return {}
    if importlib.util.find_spec("s3fs") is None:
        raise ImportError("s3fs")
    return {
        # Others write too. And the environment may name another endpoint than at the last call.
        "use_listings_cache": False,
        "skip_instance_cache": True,
        # Above 1, each read would first ask for the size.
        "max_concurrency": 1,
        "config_kwargs": {
            "connect_timeout": _CONNECT_SECONDS,
            "read_timeout": _READ_SECONDS,
            "retries": {"mode": "standard", "total_max_attempts": _ATTEMPTS},
        },
    }


def _error_code(error: BaseException) -> str | None:
    """What S3 calls an error, which s3fs keeps in the cause."""
    for candidate in (error, error.__cause__):
        response = getattr(candidate, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code"))
    return None
