"""What was read from a remote store a moment ago."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar, cast

T = TypeVar("T")

_MAX_ENTRIES = 16384


class RecentReads:
    """Keeps results for some seconds, and none beyond `forget`. Safe for threads."""

    def __init__(self, ttl_seconds: float, clock: Callable[[], float] = time.monotonic):
        self._ttl = ttl_seconds
        self._clock = clock
        self._entries: OrderedDict[Hashable, tuple[float, Any]] = OrderedDict()
        self._generation = 0
        self._lock = threading.Lock()

    def get(self, key: Hashable, read: Callable[[], T]) -> T:
        """The result kept under the key, or else what `read` returns; its errors are not kept."""
        with self._lock:
            asked, generation = self._clock(), self._generation
            read_at, kept = self._entries.get(key, (None, None))
            if read_at is not None and asked - read_at < self._ttl:
                return cast(T, kept)
        value = read()
        with self._lock:
            # A read under way may hold what was before a change.
            if generation == self._generation:
                self._entries[key] = (asked, value)
                self._entries.move_to_end(key)
                if len(self._entries) > _MAX_ENTRIES:
                    self._entries.popitem(last=False)
        return value

    def forget(self, *keys: Hashable) -> None:
        """Read these anew from now on."""
        with self._lock:
            self._generation += 1
            for key in keys:
                self._entries.pop(key, None)
