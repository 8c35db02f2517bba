"""The token bucket: so much at once, and refilled at a steady rate."""

import math


class Bucket:
    """A level that grows with time up to a capacity; spending may take it below zero."""

    def __init__(self, capacity: float, per_second: float, now: float):
        """A full bucket; `now` is in seconds from any start, as every later `now`."""
        self.capacity = capacity
        self._per_second = per_second
        self._level = float(capacity)
        self._at = now

    def level(self, now: float) -> float:
        """How much is in it."""
        grown = self._level + max(0.0, now - self._at) * self._per_second
        self._level, self._at = min(float(self.capacity), grown), now
        return self._level

    def spend(self, amount: float, now: float) -> None:
        """Take `amount` out, whether it is there or not."""
        self._level = self.level(now) - amount

    def seconds_until(self, level: float, now: float) -> float:
        """How long until it holds `level`; 0 if it does."""
        return max(0.0, level - self.level(now)) / self._per_second

    def seconds_until_full(self, now: float) -> int:
        """How long until it is full, in whole seconds."""
        return math.ceil(self.seconds_until(self.capacity, now))
