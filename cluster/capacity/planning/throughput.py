"""How many requests a second a replica can do at the most."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.capacity.times import ReplicaTimes


@dataclass(frozen=True)
class Throughput:
    """The most a replica can do.

    Attributes:
        requests_per_second: with a batch that is as full as it gets.
        batch: sequences of that batch.
        bound_by: what keeps the batch from being larger.
    """

    requests_per_second: float
    batch: int
    bound_by: str


def most_throughput(
    times: ReplicaTimes, prompt_tokens: float, output_tokens: float, host_miss_rate: float = 0.0
) -> Throughput:
    """The rate at which the engine has no second left.

    In a second of n steps with B sequences in each, λ requests cost `n · fixed + λ · work` and get
    `n · B = λ (output - 1)` tokens after their first, so λ = B / ((output - 1) fixed + B work). A
    request whose answer is one token costs a step in the worst case.
    """
    work = times.request_work_seconds(prompt_tokens, output_tokens)
    work += host_miss_rate * times.adapter.load_blocking_seconds
    fits = int(times.limits.kv_cache_tokens // (prompt_tokens + output_tokens))
    batch = max(1, min(times.limits.max_num_seqs, fits))
    bound_by = "key-value cache" if fits < times.limits.max_num_seqs else "sequences of a batch"
    steps = max(1.0, output_tokens - 1)
    seconds = steps * times.step.fixed_seconds + batch * work
    return Throughput(batch / seconds, batch, bound_by)


def idle_first_token_seconds(times: ReplicaTimes, prompt_tokens: float) -> float:
    """Time to first token of a request that is alone, with its adapter in a slot."""
    return times.request_seconds + times.step.seconds(0, round(prompt_tokens), 1)
