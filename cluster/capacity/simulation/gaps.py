"""Times between tokens: far too many to keep one by one."""

from __future__ import annotations

import math

_FIRST_SECONDS = 1e-5
_PER_DECADE = 200


class GapHistogram:
    """Counts of times by their logarithm; a quantile is right to 0.6 %."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}

    def add(self, seconds: float, count: int) -> None:
        """Count so many tokens that came `seconds` after the one before."""
        if count and seconds > 0:
            place = round(_PER_DECADE * math.log10(seconds / _FIRST_SECONDS))
            self._counts[place] = self._counts.get(place, 0) + count

    @property
    def count(self) -> int:
        """Tokens counted."""
        return sum(self._counts.values())

    def quantile(self, share: float) -> float:
        """Seconds that this share of the gaps does not exceed; NaN of none."""
        left = share * self.count
        for place in sorted(self._counts):
            left -= self._counts[place]
            if left <= 0:
                return _FIRST_SECONDS * 10 ** (place / _PER_DECADE)
        return math.nan
