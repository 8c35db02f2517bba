"""The processor's time in each training step."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager

from trainer.adapted import AdaptedModel


class StepClock:
    """Reads the process's CPU time from a step's first forward pass to its end.

    Unlike the time on the wall, it does not grow when other processes take their turn.
    """

    def __init__(self) -> None:
        self._seconds: list[float] = []
        self._began: float | None = None

    def watch(self, adapted: AdaptedModel) -> AdaptedModel:
        """The same model, whose steps are timed from now on."""
        mixed, after_step = adapted.mixed, adapted.after_step

        def begin(rows: Sequence[int], active: Sequence[int]) -> AbstractContextManager[None]:
            if self._began is None:
                self._began = time.process_time()
            return mixed(rows, active)

        def end(step: int) -> None:
            after_step(step)
            if self._began is not None:
                self._seconds.append(time.process_time() - self._began)
            self._began = None

        vars(adapted).update(mixed=begin, after_step=end)
        return adapted

    def median(self) -> float | None:
        """Seconds of the median step, None before the first."""
        return statistics.median(self._seconds) if self._seconds else None
