"""Which adapters are asked for so often that one replica is not enough for them."""


class Popularity:
    """The shares of recent requests that went to each adapter.

    Counts are halved once there are `window` of them, and adapters whose count falls to 0 are
    forgotten: memory is bounded by the window, not by the number of adapters. No clock is read.

    Args:
        window: requests after which older ones count half.
    """

    def __init__(self, window: int = 10_000):
        self._window = window
        # Shares of very few requests say nothing.
        self._least_total = window / 8
        self._counts: dict[str, int] = {}
        self._total = 0

    def __len__(self) -> int:
        return len(self._counts)

    def count(self, adapter: str) -> None:
        """Count one request."""
        self._counts[adapter] = self._counts.get(adapter, 0) + 1
        self._total += 1
        if self._total >= self._window:
            self._total //= 2
            halved = ((name, count // 2) for name, count in self._counts.items())
            self._counts = {name: count for name, count in halved if count}

    def share(self, adapter: str) -> float:
        """The adapter's share of recent requests, from 0 to 1; too small while few were counted."""
        return self._counts.get(adapter, 0) / max(self._total, self._least_total)
