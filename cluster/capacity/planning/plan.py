"""The least number of replicas that keeps what is promised, found by simulation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from cluster.capacity.planning.demand import ServingDemand
from cluster.capacity.planning.throughput import idle_first_token_seconds, most_throughput
from cluster.capacity.simulation.scenario import Scenario
from cluster.capacity.simulation.simulate import simulate
from cluster.capacity.simulation.traffic import Lengths, Rate
from cluster.capacity.times import ReplicaTimes
from propulsion.errors import ConfigError

_LEAST_REQUESTS, _MOST_REQUESTS = 20_000, 200_000
_SKIP = 0.3
_MOST_REPLICAS = 100_000


@dataclass(frozen=True)
class FleetForecast:
    """What a number of replicas is expected to give; times in seconds.

    Attributes:
        most_requests_per_second: what they could do with full batches, adapters' loads included.
        utilisation: share of it that the peak uses.
    """

    replicas: int
    ttft_p50: float
    ttft_p99: float
    inter_token_p99: float
    host_hit_rate: float
    slot_hit_rate: float
    tokens_per_second: float
    most_requests_per_second: float
    utilisation: float
    simulated_requests: int


@dataclass(frozen=True)
class ServingPlan:
    """The answer. Memory in bytes.

    Attributes:
        limited_by: why one replica less is too few.
        cost_per_million_tokens: of generated tokens at the peak; None without a price.
        warnings: where the demand lies outside of what was measured.
    """

    demand: ServingDemand
    device: str
    forecast: FleetForecast
    gpus: int
    limited_by: str
    slot_bytes_per_replica: int
    host_bytes_per_replica: int
    cost_per_million_tokens: float | None
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON types."""
        return {**asdict(self), "demand": self.demand.model_dump()}


def plan_serving(
    demand: ServingDemand,
    times: ReplicaTimes,
    *,
    seed: int = 0,
    tell: Callable[[FleetForecast], None] = lambda forecast: None,
) -> ServingPlan:
    """Find the least number of replicas that keeps both promises and the headroom.

    Args:
        demand: what is asked.
        times: what a replica was measured to take.
        seed: of the simulated traffic.
        tell: gets every number of replicas that was tried.

    Raises:
        ConfigError: no number of replicas can keep a promise.
    """
    _refuse_impossible(demand, times)
    most = most_throughput(times, demand.prompt_tokens, demand.output_tokens)
    usable = most.requests_per_second * (1 - demand.headroom)
    enough_throughput = max(1, math.ceil(demand.requests_per_second / usable))
    tried: dict[int, FleetForecast] = {}

    def broken(replicas: int) -> str | None:
        if replicas not in tried:
            tried[replicas] = _forecast(demand, times, replicas, seed)
            tell(tried[replicas])
        return _broken_promise(demand, tried[replicas])

    replicas, reason = enough_throughput, f"throughput, bound by {most.bound_by}"
    if replicas == 1:
        reason = "nothing: one replica is the least"
    low = replicas - 1
    while why := broken(replicas):
        reason, low, replicas = why, replicas, 2 * replicas
        if replicas > _MOST_REPLICAS:
            raise ConfigError(
                f"even {low:,} replicas do not keep the promise: {reason}; measured was "
                f"{tried[low].ttft_p99:.3f} s to the first token"
            )
    while replicas - low > 1 and low >= enough_throughput:
        middle = (low + replicas) // 2
        if why := broken(middle):
            low, reason = middle, why
        else:
            replicas = middle
    return _plan(demand, times, tried[replicas], reason)


def _refuse_impossible(demand: ServingDemand, times: ReplicaTimes) -> None:
    idle = idle_first_token_seconds(times, demand.prompt_tokens)
    if idle > demand.ttft_p99_seconds:
        raise ConfigError(
            f"--ttft-p99-seconds {demand.ttft_p99_seconds}: an idle {times.conditions.device} "
            f"takes {idle:.3f} s to the first token of {demand.prompt_tokens:.0f} tokens, so no "
            "number of replicas keeps it: promise more time, or measure a faster device"
        )
    gap = times.step_seconds(1)
    if demand.output_tokens > 1 and gap > demand.inter_token_p99_seconds:
        raise ConfigError(
            f"--inter-token-p99-seconds {demand.inter_token_p99_seconds}: a lone request on "
            f"{times.conditions.device} gets a token every {gap:.4f} s, so no number of replicas "
            "keeps it: promise more time, or measure a faster device"
        )


def _forecast(
    demand: ServingDemand, times: ReplicaTimes, replicas: int, seed: int
) -> FleetForecast:
    answer_seconds = demand.output_tokens * times.step_seconds(times.limits.max_num_seqs)
    # Ten answers' time, so that the fleet is in its usual state for most of it.
    wanted = demand.requests_per_second * 10 * answer_seconds
    num_requests = int(min(_MOST_REQUESTS, max(_LEAST_REQUESTS, wanted)))
    outcome = simulate(
        Scenario(
            times=times,
            replicas=replicas,
            policy="affinity",
            num_requests=num_requests,
            rate=Rate((demand.requests_per_second,)),
            num_adapters=demand.adapters,
            zipf_exponent=demand.zipf_exponent,
            prompt=Lengths(demand.prompt_tokens, demand.length_sigma),
            output=Lengths(demand.output_tokens, demand.length_sigma),
            seed=seed,
        )
    )
    p50, p99 = outcome.first_token_quantiles([0.5, 0.99], _SKIP)
    gap = outcome.gaps.quantile(0.99)
    hit_rate = outcome.host_hit_rate(_SKIP)
    most = most_throughput(times, demand.prompt_tokens, demand.output_tokens, 1 - hit_rate)
    most_of_all = replicas * most.requests_per_second
    return FleetForecast(
        replicas=replicas,
        ttft_p50=p50,
        ttft_p99=p99,
        inter_token_p99=0.0 if math.isnan(gap) else gap,
        host_hit_rate=hit_rate,
        slot_hit_rate=outcome.slot_hit_rate,
        tokens_per_second=outcome.output_tokens / outcome.seconds,
        most_requests_per_second=most_of_all,
        utilisation=demand.requests_per_second / most_of_all,
        simulated_requests=num_requests,
    )


def _broken_promise(demand: ServingDemand, forecast: FleetForecast) -> str | None:
    if forecast.ttft_p99 > demand.ttft_p99_seconds:
        return "time to first token"
    if forecast.inter_token_p99 > demand.inter_token_p99_seconds:
        return "time between tokens"
    if forecast.utilisation > 1 - demand.headroom:
        return "throughput, loads of adapters included"
    return None


def _plan(
    demand: ServingDemand, times: ReplicaTimes, forecast: FleetForecast, limited_by: str
) -> ServingPlan:
    row, limits = times.adapter.row_bytes, times.limits
    cost = None
    if demand.price_per_replica_hour is not None:
        an_hour = 3600 * demand.requests_per_second * demand.output_tokens
        cost = 1e6 * forecast.replicas * demand.price_per_replica_hour / an_hour
    return ServingPlan(
        demand=demand,
        device=times.conditions.device,
        forecast=forecast,
        gpus=forecast.replicas * times.conditions.gpus_per_replica,
        limited_by=limited_by,
        slot_bytes_per_replica=limits.slots * row,
        host_bytes_per_replica=limits.host_adapters * row,
        cost_per_million_tokens=cost,
        warnings=tuple(_warnings(demand, times)),
    )


def _warnings(demand: ServingDemand, times: ReplicaTimes) -> list[str]:
    found = []
    conditions = times.conditions
    for name, asked, measured in (
        ("prompts", demand.prompt_tokens, conditions.prompt_tokens),
        ("answers", demand.output_tokens, conditions.output_tokens),
    ):
        if not min(measured) <= asked <= max(measured):
            found.append(
                f"{name} of {asked:.0f} tokens lie outside of the {min(measured)} to "
                f"{max(measured)} that were measured: measure such ones"
            )
    if times.fit.worst_error > 0.3:
        found.append(
            f"the measured times fit a sum of parts only to {times.fit.worst_error:.0%} at worst: "
            "measure again on a quiet machine"
        )
    return found
