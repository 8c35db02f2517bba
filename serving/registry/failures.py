"""Loads that failed a moment ago: not tried again at once, and shown to operators."""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator

from propulsion.errors import PropulsionError, StoreUnavailableError

_SECONDS = 5.0
_SECONDS_WHEN_AWAY = 1.0
_KEPT = 1024


class RecentFailures:
    """Errors by reference, so that clients who hammer a bad adapter do not hammer the store."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._errors: OrderedDict[str, tuple[PropulsionError, float]] = OrderedDict()

    def add(self, reference: str, error: PropulsionError) -> None:
        """Remember why a load failed; the oldest of many failures is forgotten."""
        # A store that is away says nothing about the adapter.
        away = isinstance(error, StoreUnavailableError)
        until = self._clock() + (_SECONDS_WHEN_AWAY if away else _SECONDS)
        self._errors[reference] = (error, until)
        self._errors.move_to_end(reference)
        if len(self._errors) > _KEPT:
            self._errors.popitem(last=False)

    def raise_recent(self, reference: str) -> None:
        """Raise a recent failure's error once more, so that nothing is tried."""
        error, until = self._errors.get(reference, (None, 0.0))
        if error is not None and self._clock() < until:
            # A new one each time: a raised exception collects the traceback of every raise.
            raise type(error)(str(error))

    def forget(self, reference: str) -> None:
        """It has been loaded, or is to be tried whatever happened before."""
        self._errors.pop(reference, None)

    def items(self) -> Iterator[tuple[str, PropulsionError]]:
        """The last error of every reference whose latest load failed."""
        return ((reference, error) for reference, (error, _) in self._errors.items())
