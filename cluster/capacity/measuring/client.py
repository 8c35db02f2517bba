"""A client light enough not to be what is measured."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from propulsion.errors import PropulsionError

_CACHE_CONFIG = "vllm:cache_config_info"
_METRICS = {
    "propulsion_serve_host_cache_hits_total": "host_hits",
    "propulsion_serve_host_cache_misses_total": "host_misses",
    "propulsion_serve_slot_hits_total": "slot_hits",
    "propulsion_serve_slot_misses_total": "slot_misses",
}


@dataclass
class Answer:
    """One streamed answer; times are of `time.perf_counter`, 0 for what did not come.

    Attributes:
        sent, first, last: when it was sent, and its first and last token came.
        gaps: seconds between the pieces of the stream after the first.
        error: what went wrong; empty for an answer that is whole.
    """

    sent: float = 0.0
    first: float = 0.0
    last: float = 0.0
    gaps: list[float] = field(default_factory=list)
    error: str = ""


@asynccontextmanager
async def client_session() -> Any:
    """An aiohttp session without a limit of connections."""
    import aiohttp

    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=300)
    ) as session:
        yield session


async def ask(session: Any, url: str, model: str, prompt: list[int], output: int) -> Answer:
    """One streamed completion of exactly `output` tokens."""
    import aiohttp

    body = {
        "model": model,
        "prompt": prompt,
        "max_tokens": output,
        "ignore_eos": True,
        "temperature": 0,
        "stream": True,
    }
    answer = Answer(sent=time.perf_counter())
    done = False
    try:
        async with session.post(f"{url}/v1/completions", json=body) as response:
            if response.status != 200:
                answer.error = f"{response.status}: {(await response.text())[:200]}"
                return answer
            async for line in response.content:
                if not line.startswith(b"data: "):
                    continue
                now = time.perf_counter()
                if line.startswith(b"data: [DONE]"):
                    done = True
                elif b'"error"' in line:
                    answer.error = line.decode(errors="replace")[:200]
                elif not answer.first:
                    answer.first = answer.last = now
                else:
                    answer.gaps.append(now - answer.last)
                    answer.last = now
    except (TimeoutError, aiohttp.ClientError) as error:
        answer.error = f"{type(error).__name__}: {error}"
    if not answer.error and not (done and answer.first):
        answer.error = "the stream was cut short"
    return answer


async def read_counters(session: Any, url: str) -> dict[str, float]:
    """The server's counts of cache hits, and `kv_cache_tokens`."""
    from prometheus_client.parser import text_string_to_metric_families

    async with session.get(f"{url}/metrics") as response:
        text = await response.text()
    # The whole page, with a histogram for each adapter, would keep the client's loop for long.
    wanted = (*_METRICS, _CACHE_CONFIG)
    text = "".join(line for line in text.splitlines(True) if line.startswith(wanted))
    found: dict[str, float] = {}
    for sample in _samples(text_string_to_metric_families(text)):
        if sample.name in _METRICS:
            found[_METRICS[sample.name]] = sample.value
        elif sample.name == _CACHE_CONFIG:
            labels = sample.labels
            found["kv_cache_tokens"] = int(labels["block_size"]) * int(labels["num_gpu_blocks"])
    return found


async def read_status(session: Any, url: str) -> dict[str, Any]:
    """The admin API's status of a server."""
    async with session.get(f"{url}/admin/v1/status") as response:
        if response.status != 200:
            raise PropulsionError(f"{url}/admin/v1/status answered {response.status}")
        status: dict[str, Any] = await response.json()
        return status


def _samples(families: Any) -> Iterator[Any]:
    for family in families:
        yield from family.samples
