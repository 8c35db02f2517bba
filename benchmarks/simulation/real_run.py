"""Open-loop Zipf traffic to two real replicas, routed by a policy in this process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cluster.capacity.measuring.client import Answer, ask, client_session, read_counters
from cluster.capacity.simulation.routing import make_policy
from cluster.capacity.simulation.traffic import Traffic

# The workers' own counts reach /metrics every 5 s.
_WORKER_STATE_SECONDS = 6.0


@dataclass(frozen=True)
class RealRun:
    """What clients and servers saw after the first `skip` of the requests; times in seconds.

    Attributes:
        first_token: of each request, shape (num_requests - skipped,).
        gaps: between the pieces of the streams.
        host_hit_rate, slot_hit_rate: the servers' own counts; slots over the whole run.
        shares: of the requests, by replica.
        requests_per_second, tokens_per_second: over the whole run.
        late_seconds: p99 of how much later than drawn a request was sent.
        failed: requests that got no full answer.
    """

    first_token: NDArray[np.float64]
    gaps: NDArray[np.float64]
    host_hit_rate: float
    slot_hit_rate: float
    shares: tuple[float, ...]
    requests_per_second: float
    tokens_per_second: float
    late_seconds: float
    failed: int


async def run_policy(
    urls: Sequence[str],
    names: Sequence[str],
    policy_name: str,
    traffic: Traffic,
    vocabulary: int,
    skip: float,
) -> RealRun:
    """Send the traffic when it is due, whatever is still under way."""
    policy = make_policy(policy_name, len(names), seed=0)
    policy.set_replicas(range(len(urls)))
    ongoing, sent_to = [0] * len(urls), [0] * len(urls)
    generator = np.random.default_rng(3)
    prompts = [generator.integers(3, vocabulary, n).tolist() for n in traffic.prompt]
    answers: list[Answer] = [Answer()] * len(traffic)
    late = np.zeros(len(traffic))

    async with client_session() as session:

        async def count() -> dict[str, float]:
            counters = await asyncio.gather(*(read_counters(session, url) for url in urls))
            keys = {key for one in counters for key in one}
            return {key: sum(one.get(key, 0.0) for one in counters) for key in keys}

        async def send(request: int) -> None:
            replica = policy.choose(int(traffic.adapter[request]))
            ongoing[replica] += 1
            sent_to[replica] += 1
            policy.set_ongoing(replica, ongoing[replica])
            answers[request] = await ask(
                session,
                urls[replica],
                names[int(traffic.adapter[request])],
                prompts[request],
                int(traffic.output[request]),
            )
            ongoing[replica] -= 1
            policy.set_ongoing(replica, ongoing[replica])

        slots_before = await count()
        skipped = int(skip * len(traffic))
        tasks = []
        start = time.perf_counter()
        for request, due in enumerate(traffic.arrival.tolist()):
            await asyncio.sleep(max(0.0, start + due - time.perf_counter()))
            late[request] = time.perf_counter() - start - due
            if request == skipped:
                counting = asyncio.create_task(count())
            tasks.append(asyncio.create_task(send(request)))
        await asyncio.gather(*tasks)
        seconds = time.perf_counter() - start
        before = await counting
        await asyncio.sleep(_WORKER_STATE_SECONDS)
        after = await count()
    good = [answer for answer in answers[skipped:] if not answer.error]
    return RealRun(
        first_token=np.array([answer.first - answer.sent for answer in good]),
        gaps=np.concatenate([np.array(answer.gaps) for answer in good]),
        host_hit_rate=_rate(before, after, "host"),
        slot_hit_rate=_rate(slots_before, after, "slot"),
        shares=tuple(count / len(traffic) for count in sent_to),
        requests_per_second=len(traffic) / seconds,
        tokens_per_second=float(traffic.output.sum() / seconds),
        late_seconds=float(np.quantile(late, 0.99)),
        failed=sum(bool(answer.error) for answer in answers),
    )


def _rate(before: dict[str, float], after: dict[str, float], level: str) -> float:
    hits, misses = (after[f"{level}_{kind}"] - before[f"{level}_{kind}"] for kind in _KINDS)
    return hits / max(1.0, hits + misses)


_KINDS = ("hits", "misses")
