"""Requests to come: when, for which adapter, how long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Lengths:
    """Token counts drawn from a log-normal law; `sigma` 0 makes them all the mean."""

    mean: float
    sigma: float = 0.0

    def draw(self, count: int, generator: np.random.Generator) -> NDArray[np.int64]:
        """`count` numbers of tokens, each at least 1; shape (count,)."""
        drawn = generator.lognormal(np.log(self.mean) - self.sigma**2 / 2, self.sigma, count)
        return np.maximum(1, np.rint(drawn)).astype(np.int64)


@dataclass(frozen=True)
class Rate:
    """Arrivals a second, `per_second[i]` from `since[i]` seconds on; the first is from 0."""

    per_second: Sequence[float]
    since: Sequence[float] = (0.0,)


@dataclass(frozen=True)
class Traffic:
    """Requests in order of arrival, all of shape (num_requests,).

    Attributes:
        arrival: seconds.
        adapter: popularity rank of the adapter asked for, 0 the most popular.
        prompt, output: tokens.
    """

    arrival: NDArray[np.float64]
    adapter: NDArray[np.int64]
    prompt: NDArray[np.int64]
    output: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.arrival)


def zipf_weights(num_adapters: int, exponent: float) -> NDArray[np.float64]:
    """Share of the requests that each adapter gets: proportional to rank ** -exponent."""
    weights = np.arange(1, num_adapters + 1, dtype=np.float64) ** -exponent
    return weights / weights.sum()


def draw_traffic(
    num_requests: int,
    rate: Rate,
    weights: NDArray[np.float64],
    prompt: Lengths,
    output: Lengths,
    seed: int,
) -> Traffic:
    """Independent requests that arrive by a Poisson process.

    Args:
        num_requests: how many.
        rate: arrivals a second over time.
        weights: popularity of the adapters, shape (num_adapters,), sum 1.
        prompt, output: lengths in tokens.
        seed: equal seeds draw equal traffic.
    """
    generator = np.random.default_rng(seed)
    expected = np.cumsum(generator.exponential(1.0, num_requests))
    cumulative = np.cumsum(weights)
    places = np.searchsorted(cumulative, generator.random(num_requests) * cumulative[-1], "right")
    return Traffic(
        _inverse(rate, expected),
        np.minimum(places, len(weights) - 1),
        prompt.draw(num_requests, generator),
        output.draw(num_requests, generator),
    )


def _inverse(rate: Rate, expected: NDArray[np.float64]) -> NDArray[np.float64]:
    """When the rate has let so many arrivals be expected."""
    since, per_second = np.asarray(rate.since, float), np.asarray(rate.per_second, float)
    at_change = np.concatenate([[0.0], np.cumsum(np.diff(since) * per_second[:-1])])
    piece = np.searchsorted(at_change, expected, "right") - 1
    return since[piece] + (expected - at_change[piece]) / per_second[piece]
