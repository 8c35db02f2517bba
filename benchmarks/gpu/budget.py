"""The time that a run may take: what would overrun it is left out, and said to be."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


class Budget:
    """Runs one piece of work after another, as long as the next is likely to end in time.

    Work that fails is left out too: it must not take the others' numbers with it.

    Args:
        seconds: from now, for all.
        clock: seconds, from any start.

    Attributes:
        left_out: why, by the name of what was not done.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._start = clock()
        self._end = self._start + seconds
        self._longest: dict[str, float] = {}
        self.left_out: dict[str, str] = {}

    @property
    def seconds_spent(self) -> float:
        """Since the start."""
        return self._clock() - self._start

    @property
    def seconds_left(self) -> float:
        """Until the end; below 0 after it."""
        return self._end - self._clock()

    def run(
        self, name: str, work: Callable[[], Result], *, kind: str, expected_seconds: float
    ) -> Result | None:
        """What `work` returns; None where it was left out.

        Args:
            name: for `left_out`.
            work: may raise anything.
            kind: work of a kind is expected to take as long as its longest so far.
            expected_seconds: what the first of its kind is expected to take.
        """
        expected = self._longest.get(kind, expected_seconds)
        left = self.seconds_left
        if left < expected:
            self.left_out[name] = (
                f"skipped: {max(left, 0):.0f} s of the budget were left, and it may take "
                f"{expected:.0f} s"
            )
            return None
        start = self._clock()
        try:
            return work()
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            self.left_out[name] = f"failed: {type(error).__name__}: {error}".splitlines()[0]
            return None
        finally:
            took = self._clock() - start
            self._longest[kind] = max(took, self._longest.get(kind, 0.0))
