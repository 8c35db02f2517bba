"""The counts taken once per token: kept in plain numbers and given to Prometheus when it asks.

prometheus_client's own counter and histogram cost five times as much per call, since they lock and
search linearly; at tens of thousands of tokens a second that is a share of the server's one thread.
"""

from bisect import bisect_left
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.utils import floatToGoString

GAP_BOUNDS = (
    *(0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075),
    *(0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5, 5.0),
)
_LE = (*map(floatToGoString, GAP_BOUNDS), "+Inf")


class TokenSeries:
    """One adapter's tokens; written by the event loop's thread alone.

    Attributes:
        generated: tokens generated.
    """

    __slots__ = ("_gap_counts", "_gap_seconds", "generated")

    def __init__(self) -> None:
        self.generated = 0
        self._gap_counts = [0] * len(_LE)
        self._gap_seconds = 0.0

    def observe_gap(self, seconds: float, num_tokens: int) -> None:
        """Count `num_tokens` tokens of which each came `seconds` after the one before it."""
        self._gap_counts[bisect_left(GAP_BOUNDS, seconds)] += num_tokens
        self._gap_seconds += seconds * num_tokens

    def buckets(self) -> tuple[list[tuple[str, float]], float]:
        """Cumulative counts by upper bound in seconds, and the sum in seconds."""
        pairs, total = [], 0
        seconds = self._gap_seconds
        for bound, count in zip(_LE, list(self._gap_counts), strict=True):
            total += count
            pairs.append((bound, float(total)))
        return pairs, seconds


class TokenCollector:
    """All adapters' TokenSeries, as a prometheus_client collector."""

    def __init__(self) -> None:
        self._series: dict[str, TokenSeries] = {}

    def series(self, label: str) -> TokenSeries:
        """The series of a label from AdapterLabels, or BASE, BLEND and the like."""
        if label not in self._series:
            self._series[label] = TokenSeries()
        return self._series[label]

    def collect(self) -> Iterator[Metric]:
        """What Prometheus reads."""
        generated = CounterMetricFamily(
            "propulsion_serve_generated_tokens", "Tokens generated.", labels=["adapter"]
        )
        gaps = HistogramMetricFamily(
            "propulsion_serve_inter_token_seconds",
            "Seconds between one token of an answer and the next; of an answer that is not "
            "streamed, their mean.",
            labels=["adapter"],
        )
        # A copy: the scrape may run in another thread than the requests.
        for label, series in list(self._series.items()):
            generated.add_metric([label], series.generated)
            pairs, seconds = series.buckets()
            gaps.add_metric([label], pairs, seconds)
        yield generated
        yield gaps
