"""What only a simulation can answer: many replicas, very many adapters, failures."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from cluster.capacity.planning.throughput import most_throughput
from cluster.capacity.report import outcome_summary
from cluster.capacity.simulation.autoscaling import AutoscalerConfig
from cluster.capacity.simulation.outcome import Outcome
from cluster.capacity.simulation.scenario import Scenario
from cluster.capacity.simulation.simulate import simulate
from cluster.capacity.simulation.traffic import Lengths, Rate
from cluster.capacity.times import ReplicaTimes, with_places
from cluster.serving.affinity import AffinityConfig

POLICIES = ("affinity", "two_choices", "round_robin")
_PROMPT, _OUTPUT = Lengths(64, 0.5), Lengths(16, 0.5)
_WINDOW_SECONDS = 5.0


@dataclass(frozen=True)
class Sizes:
    """How large the experiments are."""

    replicas: int = 1000
    adapters: int = 1_000_000
    requests: int = 500_000
    host_adapters: int = 2000
    slots: int = 128
    small_replicas: int = 50
    small_requests: int = 40_000


@dataclass(frozen=True)
class Job:
    """A scenario and where its result belongs."""

    experiment: str
    scenario: Scenario


def run_experiments(
    times: ReplicaTimes, sizes: Sizes, tell: Callable[[str], None]
) -> dict[str, list[dict[str, Any]]]:
    """All experiments, on every core; rows by experiment."""
    jobs = [*_scale(times, sizes), *_transient(times, sizes)]
    jobs += [*_host_sizes(times, sizes), *_replica_counts(times, sizes)]
    jobs += _free_queues(times, sizes)
    found: dict[str, list[dict[str, Any]]] = {}
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for number, (job, row) in enumerate(zip(jobs, pool.map(_run, jobs), strict=True), 1):
            tell(f"simulated {number} of {len(jobs)}: {job.experiment}, {job.scenario.policy}")
            found.setdefault(job.experiment, []).append(row)
    return found


def _run(job: Job) -> dict[str, Any]:
    began = time.perf_counter()
    outcome = simulate(job.scenario)
    limits = job.scenario.times.limits
    row = {
        "policy": job.scenario.policy,
        "replicas": job.scenario.replicas,
        "adapters": job.scenario.num_adapters,
        "requests_offered_per_second": job.scenario.rate.per_second[0],
        "free_queue": (job.scenario.affinity or AffinityConfig()).free_queue,
        "host_adapters": limits.host_adapters,
        "host_mib": limits.host_adapters * job.scenario.times.adapter.row_bytes / 2**20,
        "busiest_to_mean": _busiest_to_mean(outcome, job.scenario.replicas),
        **outcome_summary(outcome),
        "wall_seconds": time.perf_counter() - began,
    }
    return row | {"timeline": _timeline(outcome)} if job.experiment == "transient" else row


def usual_rate(times: ReplicaTimes, share: float = 0.5) -> float:
    """Requests a second of a replica at a share of its most, where every adapter is at hand."""
    most = most_throughput(times, _PROMPT.mean, _OUTPUT.mean)
    return share * most.requests_per_second


def _scenario(times: ReplicaTimes, policy: str, replicas: int, **changes: Any) -> Scenario:
    fields: dict[str, Any] = {
        "times": times,
        "replicas": replicas,
        "policy": policy,
        "num_requests": 0,
        "rate": Rate((usual_rate(times) * replicas,)),
        "num_adapters": 1000 * replicas,
        "zipf_exponent": 1.0,
        "prompt": _PROMPT,
        "output": _OUTPUT,
    }
    return Scenario(**(fields | changes))


def _scale(times: ReplicaTimes, sizes: Sizes) -> Iterator[Job]:
    fleet = with_places(times, slots=sizes.slots, host_adapters=sizes.host_adapters)
    for policy in POLICIES:
        yield Job(
            "scale",
            _scenario(
                fleet,
                policy,
                sizes.replicas,
                num_requests=sizes.requests,
                num_adapters=sizes.adapters,
            ),
        )


def _host_sizes(times: ReplicaTimes, sizes: Sizes) -> Iterator[Job]:
    for host in (128, 256, 512, 1024, 2048, 4096):
        fleet = with_places(times, slots=sizes.slots, host_adapters=host)
        for policy in POLICIES:
            scenario = _scenario(
                fleet, policy, sizes.small_replicas, num_requests=sizes.small_requests
            )
            yield Job("host_sizes", scenario)


def _replica_counts(times: ReplicaTimes, sizes: Sizes) -> Iterator[Job]:
    """The same traffic to more and more replicas."""
    fleet = with_places(times, slots=sizes.slots, host_adapters=sizes.host_adapters)
    rate = Rate((usual_rate(times) * sizes.small_replicas,))
    for share in (0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.5, 2.0):
        replicas = round(share * sizes.small_replicas)
        for policy in POLICIES:
            scenario = _scenario(
                fleet,
                policy,
                replicas,
                num_requests=sizes.small_requests,
                num_adapters=1000 * sizes.small_replicas,
                rate=rate,
            )
            yield Job("replica_counts", scenario)


def _transient(times: ReplicaTimes, sizes: Sizes) -> Iterator[Job]:
    """Traffic rises by 70 % and falls back; later a fifth of the replicas dies."""
    fleet = with_places(times, slots=sizes.slots, host_adapters=sizes.host_adapters)
    replicas = max(5, sizes.small_replicas // 2)
    base = usual_rate(times) * replicas
    rise = 60.0
    fall = rise + 90.0 + 2 * times.boot_seconds
    deaths = fall + 150.0
    end = deaths + 60.0 + times.boot_seconds
    autoscaler = AutoscalerConfig(
        min_replicas=replicas,
        max_replicas=4 * replicas,
        target_ongoing_requests=_usual_ongoing(fleet),
        upscale_delay_s=10.0,
        downscale_delay_s=60.0,
    )
    scenario = _scenario(
        fleet,
        "affinity",
        replicas,
        num_requests=int(base * (end + 0.7 * (fall - rise))),
        rate=Rate((base, 1.7 * base, base), (0.0, rise, fall)),
        autoscaler=autoscaler,
        failures=((deaths, replicas // 5),),
    )
    yield Job("transient", scenario)


def _free_queues(times: ReplicaTimes, sizes: Sizes) -> Iterator[Job]:
    """How long a queue may be before requests leave the replica that holds their adapter."""
    fleet = with_places(times, slots=sizes.slots, host_adapters=sizes.host_adapters)
    for free_queue in (2, 4, 8, 12, 16, 24, 32):
        scenario = _scenario(
            fleet,
            "affinity",
            sizes.small_replicas,
            num_requests=sizes.small_requests,
            affinity=AffinityConfig(free_queue=free_queue),
        )
        yield Job("free_queues", scenario)


def _usual_ongoing(times: ReplicaTimes) -> float:
    """Requests that a replica has at the usual rate, by a short simulation of one."""
    outcome = simulate(_scenario(times, "affinity", 1, num_requests=2000, num_adapters=1000))
    return float(outcome.finished.mean() * usual_rate(times)) * 1.2


def _busiest_to_mean(outcome: Outcome, replicas: int) -> float:
    counts = np.bincount(outcome.replica, minlength=replicas)
    return float(counts.max() / counts[counts > 0].mean())


def _timeline(outcome: Outcome) -> dict[str, list[float]]:
    arrival, first = outcome.traffic.arrival, outcome.first_token
    edges = np.arange(0.0, arrival[-1], _WINDOW_SECONDS)
    p99 = []
    for edge in edges:
        window = first[(arrival >= edge) & (arrival < edge + _WINDOW_SECONDS)]
        p99.append(float(np.nanquantile(window, 0.99)) if len(window) else float("nan"))
    return {
        "seconds": [moment.seconds for moment in outcome.moments],
        "serving": [moment.serving for moment in outcome.moments],
        "starting": [moment.starting for moment in outcome.moments],
        "ongoing": [moment.ongoing for moment in outcome.moments],
        "window_seconds": edges.tolist(),
        "window_ttft_p99": p99,
        "window_requests": np.histogram(arrival, [*edges, edges[-1] + _WINDOW_SECONDS])[0].tolist(),
    }
