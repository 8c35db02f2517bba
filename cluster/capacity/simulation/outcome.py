"""What came of a simulation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cluster.capacity.simulation.gaps import GapHistogram
from cluster.capacity.simulation.traffic import Traffic


@dataclass(frozen=True)
class Moment:
    """The fleet at one time."""

    seconds: float
    serving: int
    starting: int
    ongoing: int


@dataclass(frozen=True)
class Outcome:
    """What every request got. Arrays have shape (num_requests,), in order of arrival.

    Attributes:
        traffic: the requests.
        first_token, finished: seconds from arrival; NaN for a request that failed.
        host_hit: whether its adapter was in host memory where it was sent (last).
        replica: where it was sent (last).
        times_ended: how often it ended; 1 for each, or the simulation is wrong.
        retries: requests that were sent again.
        gaps: times between tokens.
        slot_hits, slot_misses: times that an adapter joined a batch, from a slot or after a copy.
        moments: the fleet over time.
        replica_seconds: what all replicas took together, booting included.
    """

    traffic: Traffic
    first_token: NDArray[np.float64]
    finished: NDArray[np.float64]
    host_hit: NDArray[np.bool_]
    replica: NDArray[np.int64]
    times_ended: NDArray[np.int64]
    retries: int
    gaps: GapHistogram
    slot_hits: int
    slot_misses: int
    moments: list[Moment]
    replica_seconds: float

    @property
    def failed(self) -> int:
        """Requests that got no full answer."""
        return int(np.isnan(self.finished).sum())

    def since(self, share: float) -> slice:
        """The requests after the first `share` of them, which start on an empty fleet."""
        return slice(int(share * len(self.traffic)), None)

    def first_token_quantiles(self, shares: list[float], skip: float = 0.0) -> list[float]:
        """Quantiles of the time to first token, without the first `skip` of the requests."""
        return _quantiles(self.first_token[self.since(skip)], shares)

    def host_hit_rate(self, skip: float = 0.0) -> float:
        """Share of the requests whose adapter was in host memory."""
        return float(self.host_hit[self.since(skip)].mean())

    @property
    def slot_hit_rate(self) -> float:
        """Share of the times an adapter joined a batch that needed no copy."""
        return self.slot_hits / max(1, self.slot_hits + self.slot_misses)

    @property
    def seconds(self) -> float:
        """From the first arrival until the last answer ended."""
        ends = self.traffic.arrival + self.finished
        return float(np.nanmax(ends) - self.traffic.arrival[0])

    @property
    def output_tokens(self) -> int:
        """Tokens of the answers that ended well."""
        return int(self.traffic.output[~np.isnan(self.finished)].sum())


def _quantiles(values: NDArray[np.float64], shares: list[float]) -> list[float]:
    found: list[float] = np.nanquantile(values, shares).tolist()
    return found
