"""The small end: two real replicas, and the simulation of the same requests."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmarks.simulation.real_run import RealRun, run_policy
from cluster.capacity.planning.throughput import most_throughput
from cluster.capacity.simulation.outcome import Outcome
from cluster.capacity.simulation.scenario import Scenario
from cluster.capacity.simulation.simulate import simulate
from cluster.capacity.simulation.traffic import Lengths, Rate, Traffic, draw_traffic, zipf_weights
from cluster.capacity.times import ReplicaTimes

POLICIES = ("affinity", "round_robin")
SKIP = 0.3
_PROMPT, _OUTPUT = Lengths(48, 0.4), Lengths(16, 0.4)
_OTHER_SEEDS = range(1, 6)


@dataclass(frozen=True)
class Load:
    """What the replicas are asked for.

    Attributes:
        seconds: of each policy's run.
        utilisation: share of the most that the replicas could do.
        zipf_exponent: popularity of the adapters.
    """

    seconds: float = 60.0
    utilisation: float = 0.5
    zipf_exponent: float = 1.0


def validate(
    urls: Sequence[str],
    names: Sequence[str],
    times: ReplicaTimes,
    load: Load,
    vocabulary: int,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    """Run both policies for real and in the simulation; what each gives, by policy."""
    rate = load.utilisation * len(urls) * _most(times)
    scenario = Scenario(
        times=times,
        replicas=len(urls),
        policy="affinity",
        num_requests=int(rate * load.seconds),
        rate=Rate((rate,)),
        num_adapters=len(names),
        zipf_exponent=load.zipf_exponent,
        prompt=_PROMPT,
        output=_OUTPUT,
        warm=False,
        # The client is not told what the replicas hold; two replicas leave little to choose.
        report_seconds=math.inf,
    )
    traffic = _traffic(scenario, 0)
    load_before = os.getloadavg()[0]
    found: dict[str, Any] = {}
    for policy in POLICIES:
        tell(f"two real replicas, {policy}, {load.seconds:.0f} s")
        real = asyncio.run(run_policy(urls, names, policy, traffic, vocabulary, SKIP))
        own = replace(scenario, policy=policy)
        found[policy] = {
            "real": _real_summary(real),
            "simulated": _simulated_summary(simulate(own, traffic)),
            "other_traffic": [
                _simulated_summary(simulate(own, _traffic(own, seed))) for seed in _OTHER_SEEDS
            ],
        }
    return {
        "policies": found,
        "load_average": [load_before, os.getloadavg()[0]],
        "requests": len(traffic),
        "requests_per_second": rate,
        "adapters": len(names),
        "prompt_tokens": _PROMPT.mean,
        "output_tokens": _OUTPUT.mean,
        "seconds": load.seconds,
        "utilisation": load.utilisation,
    }


def _most(times: ReplicaTimes) -> float:
    # Half of the requests find their adapter in host memory, roughly.
    return most_throughput(times, _PROMPT.mean, _OUTPUT.mean, 0.5).requests_per_second


def _traffic(scenario: Scenario, seed: int) -> Traffic:
    weights = zipf_weights(scenario.num_adapters, scenario.zipf_exponent)
    drawn = draw_traffic(
        scenario.num_requests, scenario.rate, weights, scenario.prompt, scenario.output, seed
    )
    # As the servers were told: no answer of a single token, and no prompt beyond those measured.
    return replace(drawn, prompt=np.clip(drawn.prompt, 8, 128), output=np.clip(drawn.output, 2, 64))


def _real_summary(real: RealRun) -> dict[str, Any]:
    return {
        "ttft_p50_seconds": _with_interval(real.first_token, 0.5),
        "ttft_p99_seconds": _with_interval(real.first_token, 0.99),
        "inter_token_p50_seconds": _with_interval(real.gaps, 0.5),
        "inter_token_p99_seconds": _with_interval(real.gaps, 0.99),
        "host_hit_rate": real.host_hit_rate,
        "slot_hit_rate": real.slot_hit_rate,
        "requests_per_second": real.requests_per_second,
        "tokens_per_second": real.tokens_per_second,
        "busier_replica_share": max(real.shares),
        "late_p99_seconds": real.late_seconds,
        "failed_requests": real.failed,
    }


def _simulated_summary(outcome: Outcome) -> dict[str, float]:
    p50, p99 = outcome.first_token_quantiles([0.5, 0.99], SKIP)
    return {
        "ttft_p50_seconds": p50,
        "ttft_p99_seconds": p99,
        "inter_token_p50_seconds": outcome.gaps.quantile(0.5),
        "inter_token_p99_seconds": outcome.gaps.quantile(0.99),
        "host_hit_rate": outcome.host_hit_rate(SKIP),
        "slot_hit_rate": outcome.slot_hit_rate,
        "requests_per_second": len(outcome.traffic) / outcome.seconds,
        "tokens_per_second": outcome.output_tokens / outcome.seconds,
        "busier_replica_share": float(np.bincount(outcome.replica).max() / len(outcome.traffic)),
        "failed_requests": outcome.failed,
    }


def _with_interval(values: np.ndarray, share: float) -> list[float]:
    """A quantile and its 95 % interval by the bootstrap."""
    generator = np.random.default_rng(0)
    drawn = [float(np.quantile(generator.choice(values, len(values)), share)) for _ in range(300)]
    return [float(np.quantile(values, share)), *np.quantile(drawn, [0.025, 0.975]).tolist()]
