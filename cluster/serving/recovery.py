"""How long it takes until a lost replica is replaced."""

import time
from collections.abc import Callable


class Recovery:
    """Times from the first sign of a loss until as many replicas run as before it.

    Args:
        observe: called with the seconds of each recovery.
        clock: monotonic seconds.
    """

    def __init__(
        self, observe: Callable[[float], None], clock: Callable[[], float] = time.monotonic
    ):
        self._observe = observe
        self._clock = clock
        self._running = 0
        self._wanted = 0
        self._lost_at: float | None = None
        self._fell = False

    def lost(self) -> None:
        """A request found that its replica is gone; of several such signs the first counts."""
        if self._lost_at is None:
            self._lost_at = self._clock()
            self._wanted = self._running
            self._fell = False

    def update(self, num_running: int, *, is_planned: bool = False) -> None:
        """So many replicas run now, as Ray Serve sees it, which may be later than requests do.

        Args:
            num_running: how many.
            is_planned: fewer of them are no loss, for Ray Serve takes some away.
        """
        if num_running < self._running and not is_planned:
            self.lost()
        self._running = num_running
        if self._lost_at is None:
            return
        if is_planned:
            # What is wanted changes: this is no recovery that could be timed.
            self._lost_at = None
            return
        self._fell = self._fell or num_running < self._wanted
        if self._fell and num_running >= self._wanted:
            self._observe(self._clock() - self._lost_at)
            self._lost_at = None
