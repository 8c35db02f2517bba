"""Clients that ask without pause, and what became of each request."""

from __future__ import annotations

import asyncio
import collections
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx

_TIMEOUT_SECONDS = 300.0


@dataclass
class Outcomes:
    """What clients saw.

    Attributes:
        requests: sent, and ended since.
        ok: answered to the end.
        unstarted: failed before a byte of an answer came, by what was said.
        broken: began, and ended with an error event.
        cut: began, and ended without a word.
        finished_at: when each ended ok, by `time.monotonic`.
    """

    requests: int = 0
    ok: int = 0
    unstarted: collections.Counter[str] = field(default_factory=collections.Counter)
    broken: int = 0
    cut: int = 0
    finished_at: list[float] = field(default_factory=list)

    @property
    def failed(self) -> int:
        """Requests that failed though no byte of an answer had come."""
        return self.unstarted.total()

    def longest_pause(self, since: float) -> float:
        """Most seconds without any request ending well, after a moment."""
        times = [since, *(moment for moment in self.finished_at if moment >= since)]
        return max((b - a for a, b in itertools.pairwise(times)), default=0.0)


class Load:
    """Clients in a thread of their own, from entering until leaving the block.

    Args:
        url: of the gateway.
        adapters: draws the adapter of each request.
        clients: requests at a time.
        max_tokens: of each answer. Every second request is streamed.
        limit: requests after which the clients stop by themselves.
        headers: of each request, such as its key.
    """

    def __init__(
        self,
        url: str,
        adapters: Iterator[str],
        *,
        clients: int = 8,
        max_tokens: int = 16,
        limit: int | None = None,
        headers: dict[str, str] | None = None,
    ):
        self.outcomes = Outcomes()
        self._url = url
        self._adapters = adapters
        self._clients = clients
        self._max_tokens = max_tokens
        self._limit = limit
        self._headers = headers
        self._started = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def wait(self) -> None:
        """Return once `limit` requests have ended."""
        self._thread.join()

    def wait_for(self, condition: Callable[[Outcomes], bool], seconds: float = 300.0) -> None:
        """Return once it holds of the outcomes.

        Raises:
            TimeoutError: it does not.
        """
        deadline = time.monotonic() + seconds
        while not condition(self.outcomes):
            if time.monotonic() > deadline:
                raise TimeoutError(f"it did not come about: {self.outcomes.requests} requests")
            time.sleep(0.05)

    async def _run(self) -> None:
        limits = httpx.Limits(max_connections=self._clients)
        async with httpx.AsyncClient(
            base_url=self._url, timeout=_TIMEOUT_SECONDS, limits=limits, headers=self._headers
        ) as client:
            await asyncio.gather(*(self._client(client) for _ in range(self._clients)))

    async def _client(self, client: httpx.AsyncClient) -> None:
        while not self._over.is_set() and (self._limit is None or self._started < self._limit):
            self._started += 1
            await _ask(client, next(self._adapters), self._started, self._max_tokens, self.outcomes)


async def _ask(
    client: httpx.AsyncClient, adapter: str, number: int, max_tokens: int, seen: Outcomes
) -> None:
    body: dict[str, Any] = {
        "model": adapter,
        "prompt": [number % 250 + 1, 2, 3],
        "max_tokens": max_tokens,
        "ignore_eos": True,
        "stream": number % 2 == 0,
    }
    received = b""
    try:
        async with client.stream("POST", "/v1/completions", json=body) as answer:
            status = answer.status_code
            async for chunk in answer.aiter_bytes():
                received += chunk
    except httpx.HTTPError as error:
        if received:
            seen.cut += 1
        else:
            seen.unstarted[type(error).__name__] += 1
    else:
        _judge(status, received, body["stream"], seen)
    seen.requests += 1


def _judge(status: int, received: bytes, is_stream: bool, seen: Outcomes) -> None:
    if status != 200:
        seen.unstarted[f"{status}: {received[:200].decode(errors='replace')}"] += 1
    elif is_stream and b'"error"' in received:
        began = b'"choices"' in received
        if began:
            seen.broken += 1
        else:
            seen.unstarted[received[:200].decode(errors="replace")] += 1
    elif is_stream and not received.endswith(b"data: [DONE]\n\n"):
        seen.cut += 1
    else:
        seen.ok += 1
        seen.finished_at.append(time.monotonic())
