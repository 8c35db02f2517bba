"""Waves: so many equal requests at once to idle replicas, timed until the last answer has ended."""

from __future__ import annotations

import asyncio
import itertools
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cluster.capacity.measuring.client import Answer, ask
from propulsion.errors import PropulsionError


@dataclass(frozen=True)
class Wave:
    """Equal requests that are sent to a replica at once."""

    concurrency: int
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True)
class Timing:
    """One wave at one replica, in seconds: until the last token, and until the first tokens."""

    makespan: float
    first_token_mean: float
    first_token_first: float


class WaveSender:
    """Sends waves to all replicas at the same time, so that each has busy neighbours.

    Args:
        session: of aiohttp.
        urls: the replicas.
        vocabulary: prompts are random tokens below it.
    """

    def __init__(self, session: Any, urls: Sequence[str], vocabulary: int):
        self._session, self._urls = session, urls
        self._generator = np.random.default_rng(0)
        self._vocabulary = vocabulary

    async def send(self, wave: Wave, models: Iterator[str]) -> list[Timing]:
        """Send one wave to each replica, all with the same models; one timing a replica.

        Raises:
            PropulsionError: a request failed.
        """
        chosen = list(itertools.islice(models, wave.concurrency))
        return list(await asyncio.gather(*(self._send_to(url, wave, chosen) for url in self._urls)))

    async def _send_to(self, url: str, wave: Wave, models: Sequence[str]) -> Timing:
        prompts = self._generator.integers(
            3, self._vocabulary, (wave.concurrency, wave.prompt_tokens)
        ).tolist()
        answers: list[Answer] = await asyncio.gather(
            *(
                ask(self._session, url, model, prompt, wave.output_tokens)
                for model, prompt in zip(models, prompts, strict=True)
            )
        )
        broken = next((answer.error for answer in answers if answer.error), None)
        if broken:
            raise PropulsionError(f"a request of the measurement failed at {url}: {broken}")
        began = min(answer.sent for answer in answers)
        first = [answer.first - began for answer in answers]
        return Timing(
            max(answer.last for answer in answers) - began, statistics.fmean(first), min(first)
        )
