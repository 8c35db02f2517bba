"""The keys in force, and whom a given key belongs to."""

import asyncio
import hmac
import logging
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import SecretStr

from propulsion.errors import ConfigError
from serving.security.key_text import digest_of
from serving.security.keys_file import FileState, KeyRecord, file_state, read_keys_file
from serving.security.principal import Principal

_log = logging.getLogger(__name__)

CHECK_SECONDS = 1.0
DEFAULT_TENANT = "default"


@dataclass(frozen=True)
class KeyLimits:
    """What a key may use in each server process; None is no limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_day: int | None = None

    @property
    def is_limited(self) -> bool:
        """Whether there is any limit."""
        return self != _UNLIMITED


_UNLIMITED = KeyLimits()


@dataclass(frozen=True)
class Key:
    """One key in force.

    Attributes:
        principal: who holds it.
        digest: sha256 of the key.
        limits: what it may use.
        expires_at: Unix time in seconds from which it is refused, or None.
    """

    principal: Principal
    digest: bytes = field(repr=False)
    limits: KeyLimits = _UNLIMITED
    expires_at: float | None = None


class KeyRing:
    """The keys of the options and of the keys file, read again when that changes.

    A file that became unreadable or wrong leaves the keys as they were, and an error in the log.
    """

    def __init__(
        self,
        api_keys: Iterable[SecretStr] = (),
        keys_file: Path | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ):
        """Read the keys.

        Args:
            api_keys: keys that do everything, for the tenant "default".
            keys_file: see `serving.security.keys_file`.
            clock: seconds from any start, by which the file is looked at once a second.
            wall_clock: Unix time in seconds, by which keys expire.

        Raises:
            ConfigError: a key is empty, or the file cannot be used.
        """
        self._clock, self._wall_clock = clock, wall_clock
        self._options = tuple(_option_key(key, i) for i, key in enumerate(api_keys, 1))
        self._path = keys_file
        self._state: FileState | None = None
        self._error = ""
        self._checked_at = clock()
        self._keys: tuple[Key, ...] = ()
        self._limits: dict[str, KeyLimits] = {}
        self._use(self._read() if keys_file else ())

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, given: bytes) -> Key | None:
        """The key whose text is `given`, expired or not.

        Every key is compared in constant time, so that the time taken tells nothing.
        """
        digest = digest_of(given)
        matches = [hmac.compare_digest(digest, key.digest) for key in self._keys]
        return self._keys[matches.index(True)] if any(matches) else None

    def has_expired(self, key: Key) -> bool:
        """Whether the key's time is over."""
        return key.expires_at is not None and self._wall_clock() >= key.expires_at

    def limits_of(self, key_id: str) -> KeyLimits:
        """The limits of a key by its public name; none for a name that is not in force."""
        return self._limits.get(key_id, _UNLIMITED)

    def knows(self, key_id: str) -> bool:
        """Whether a key of that public name is in force."""
        return key_id in self._limits

    async def refresh(self) -> None:
        """Read the file again if it changed; looks at most once a second, in a thread."""
        now = self._clock()
        if self._path is None or now - self._checked_at < CHECK_SECONDS:
            return
        self._checked_at = now
        await asyncio.to_thread(self._reload_if_changed)

    def _reload_if_changed(self) -> None:
        assert self._path is not None
        try:
            if file_state(os.stat(self._path)) == self._state:
                return
            self._use(self._read())
        except OSError as error:
            self._report(f"keys file {self._path} cannot be read: {error.strerror}")
        except ConfigError as error:
            self._report(str(error))
        else:
            self._error = ""
            _log.info("keys file %s read again: %d keys in force", self._path, len(self._keys))

    def _report(self, error: str) -> None:
        if error != self._error:
            _log.error("%s. The keys read before stay in force until it is mended.", error)
        self._error = error

    def _read(self) -> tuple[Key, ...]:
        assert self._path is not None
        records, self._state = read_keys_file(self._path)
        return tuple(_file_key(record) for record in records)

    def _use(self, keys: tuple[Key, ...]) -> None:
        keys = self._options + keys
        self._limits = {key.principal.key_id: key.limits for key in keys}
        self._keys = keys


def _option_key(key: SecretStr, number: int) -> Key:
    text = key.get_secret_value()
    if not text.strip():
        raise ConfigError("an API key is empty: unset PROPULSION_API_KEY or give it a value")
    # A colon, which no id in a keys file may hold, keeps the two kinds apart.
    principal = Principal(key_id=f"option:{number}", tenant=DEFAULT_TENANT, role="admin")
    return Key(principal, digest_of(text.encode()))


def _file_key(record: KeyRecord) -> Key:
    return Key(
        Principal(
            key_id=record.id,
            tenant=record.tenant,
            role=record.role,
            adapters=record.adapters,
            may_use_base=record.base,
        ),
        bytes.fromhex(record.sha256),
        KeyLimits(record.requests_per_minute, record.tokens_per_minute, record.tokens_per_day),
        record.expires.timestamp() if record.expires else None,
    )
