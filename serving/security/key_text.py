"""The text of API keys: how it is made, digested, and kept out of messages."""

import hashlib
import re
import secrets

KEY_BYTES = 32
_PREFIX = "pk-"
_KEY = re.compile(r"pk-[A-Za-z0-9_-]{16,}")


def new_key() -> str:
    """A new key: `pk-` and 256 random bits in URL-safe base64."""
    return _PREFIX + secrets.token_urlsafe(KEY_BYTES)


def digest_of(key: bytes) -> bytes:
    """The sha256 of a key, 32 bytes.

    A slow password hash would add nothing: what it hinders is guessing, and 256 random bits are
    not guessed.
    """
    return hashlib.sha256(key).digest()


def loggable(text: str) -> str:
    """The text on one line, with whatever looks like a key of ours cut out."""
    line = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
    return _KEY.sub("pk-…", line)
