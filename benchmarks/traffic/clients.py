"""What clients ask, by Zipf's law, and what they see."""

from __future__ import annotations

import collections
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import httpx
import numpy as np


def zipf_draws(count: int, exponent: float, seed: int = 0) -> Iterator[int]:
    """Indices below `count`, for ever; the k-th most frequent one has weight k ** -exponent."""
    generator = np.random.default_rng(seed)
    ranking = generator.permutation(count)
    cumulative = np.cumsum(np.arange(1, count + 1, dtype=np.float64) ** -exponent)
    while True:
        place = np.searchsorted(cumulative, generator.random(1024) * cumulative[-1], side="right")
        yield from ranking[np.minimum(place, count - 1)].tolist()


class HostMirror:
    """What the server's host memory should hold: the adapters used last, `capacity` of them."""

    def __init__(self, capacity: int):
        self._capacity = capacity
        self._names: collections.OrderedDict[str, None] = collections.OrderedDict()

    def sent(self, name: str) -> bool:
        """Whether a request sent now finds its adapter there."""
        if name not in self._names:
            return False
        self._names.move_to_end(name)
        return True

    def answered(self, name: str) -> None:
        """The adapter of a request that gets its first token is there, whatever was before."""
        self._names.setdefault(name)
        if len(self._names) > self._capacity:
            self._names.popitem(last=False)


@dataclass
class Traffic:
    """What the clients saw. Times are those of requests that succeeded, in seconds.

    Attributes:
        first_token, total: by whether the adapter was in host memory.
        errors: by HTTP status or name of the exception.
        first_errors: the text of the first error of each kind.
    """

    requests: int = 0
    first_token: dict[bool, list[float]] = field(default_factory=lambda: {True: [], False: []})
    total: dict[bool, list[float]] = field(default_factory=lambda: {True: [], False: []})
    errors: collections.Counter[str] = field(default_factory=collections.Counter)
    first_errors: dict[str, str] = field(default_factory=dict)

    def fail(self, kind: str, text: str) -> None:
        """Count an error."""
        self.errors[kind] += 1
        self.first_errors.setdefault(kind, text[:500])


async def send_request(
    client: httpx.AsyncClient, name: str, prompt: Sequence[int], mirror: HostMirror, seen: Traffic
) -> None:
    """One streamed completion of 8 tokens, counted and timed in `seen`."""
    body = {"model": name, "prompt": prompt, "max_tokens": 8, "ignore_eos": True, "stream": True}
    hit = mirror.sent(name)
    seen.requests += 1
    start = time.perf_counter()
    first, last = None, ""
    try:
        async with client.stream("POST", "/v1/completions", json=body) as answer:
            if answer.status_code != 200:
                text = (await answer.aread()).decode(errors="replace")
                return seen.fail(str(answer.status_code), text)
            async for line in answer.aiter_lines():
                if '"error"' in line:
                    # The engine's, of an answer that had begun; the stream ends like any other.
                    return seen.fail("error_in_stream", line)
                if line and first is None:
                    first = time.perf_counter() - start
                    mirror.answered(name)
                last = line or last
    except httpx.HTTPError as error:
        return seen.fail(type(error).__name__, str(error))
    if last != "data: [DONE]" or first is None:
        return seen.fail("stream_cut_short", last)
    seen.first_token[hit].append(first)
    return seen.total[hit].append(time.perf_counter() - start)
