"""Where a store is: a path, `file://…`, or the URL of another kind of place."""

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from propulsion.errors import ConfigError

_PROTOCOL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_CREDENTIALS = re.compile(r"://[^/@\s]*@")
_QUERY = re.compile(r"(://[^?\s]*)\?[^\s\"']*")


def local_folder(location: str | Path) -> Path | None:
    """The folder that a path or `file://` URL names; None for other URLs.

    Raises:
        ConfigError: it is empty, a `file://` URL of another host, or a chain of URLs.
    """
    text = str(location)
    if not text:
        raise ConfigError("The adapter store is an empty path: give a folder or a URL.")
    if isinstance(location, Path):
        return location
    if "::" in text and "://" in text:
        raise ConfigError(
            f"{without_credentials(text)} is a chain of URLs: give the store's own URL; the store "
            "keeps a cache itself."
        )
    if not _PROTOCOL.match(text):
        return Path(text)
    if protocol_of(text) not in ("file", "local"):
        return None
    parts = urlsplit(text)
    if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        raise ConfigError(f"{text} is not a path on this machine: write file:///folder.")
    return Path(unquote(parts.path))


def protocol_of(url: str) -> str:
    """`s3` of `s3://…`, in lower case; empty if the text is no URL."""
    match = _PROTOCOL.match(url)
    return match[1].lower() if match else ""


def without_credentials(text: str) -> str:
    """A message without the users, passwords and signatures of the URLs in it."""
    return _QUERY.sub(r"\1", _CREDENTIALS.sub("://", text))
