"""From a location to the backend that keeps it."""

from pathlib import Path

from adapters.backends.interface import Backend
from adapters.backends.local import LocalBackend
from adapters.backends.location import local_folder


def open_backend(
    location: str | Path,
    *,
    cache: str | Path | None,
    cache_bytes: int | None,
    alias_ttl_seconds: float,
) -> Backend:
    """The backend of a path or URL; arguments and errors are those of `adapters.AdapterStore`."""
    folder = local_folder(location)
    if folder is not None:
        return LocalBackend(folder)
    # A local store needs neither fsspec nor what a remote one is made of.
    from adapters.backends.remote import open_remote

    return open_remote(
        str(location),
        cache=cache,
        cache_bytes=cache_bytes,
        alias_ttl_seconds=alias_ttl_seconds,
    )
