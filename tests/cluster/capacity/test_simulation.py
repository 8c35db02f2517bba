import math
from dataclasses import replace

import numpy as np
import pytest

from cluster.capacity.simulation.autoscaling import AutoscalerConfig
from cluster.capacity.simulation.scenario import Scenario
from cluster.capacity.simulation.simulate import simulate
from cluster.capacity.simulation.traffic import Lengths, Rate
from propulsion.errors import ConfigError
from tests.cluster.capacity.fleets import made_up_times, scenario

POLICIES = ("affinity", "round_robin", "two_choices")


def troubled() -> Scenario:
    """Traffic that rises, an autoscaler, and two deaths."""
    return scenario(
        num_requests=12_000,
        rate=Rate((60.0, 200.0, 60.0), (0.0, 20.0, 60.0)),
        autoscaler=AutoscalerConfig(
            min_replicas=2,
            max_replicas=12,
            target_ongoing_requests=6,
            upscale_delay_s=2,
            downscale_delay_s=10,
            look_back_period_s=5,
            metrics_interval_s=1,
        ),
        failures=((30.0, 2), (70.0, 1)),
    )


@pytest.mark.parametrize("policy", POLICIES)
def test_every_request_ends_exactly_once(policy: str):
    outcome = simulate(replace(troubled(), policy=policy))
    assert set(outcome.times_ended.tolist()) == {1}
    assert outcome.retries > 0
    answered = ~np.isnan(outcome.finished)
    # Only a request that had begun to stream may be lost with its replica.
    assert not np.isnan(outcome.first_token).any()
    assert 0 < outcome.failed < 200
    assert (outcome.first_token[answered] <= outcome.finished[answered]).all()
    tokens_after_first = (outcome.traffic.output - 1).sum()
    lost = (outcome.traffic.output[~answered] - 1).sum()
    assert tokens_after_first - lost <= outcome.gaps.count <= tokens_after_first


def test_fleet_grows_with_the_traffic_and_shrinks_after_it():
    outcome = simulate(troubled())
    serving = {round(moment.seconds): moment.serving for moment in outcome.moments}
    assert serving[10] == 4
    assert max(serving.values()) > 6
    assert serving[max(serving)] < max(serving.values())
    # No replica serves before it has booted.
    assert all(count <= 4 for seconds, count in serving.items() if seconds < 40)


def test_nothing_is_lost_when_the_fleet_shrinks():
    outcome = simulate(replace(troubled(), failures=()))
    assert outcome.failed == outcome.retries == 0


@pytest.mark.parametrize("policy", POLICIES)
def test_equal_seeds_give_equal_results(policy: str):
    first, again, other = (
        simulate(replace(troubled(), policy=policy, seed=seed)) for seed in (3, 3, 4)
    )
    assert np.array_equal(first.first_token, again.first_token, equal_nan=True)
    assert np.array_equal(first.finished, again.finished, equal_nan=True)
    assert first.moments == again.moments
    assert not np.array_equal(first.first_token, other.first_token, equal_nan=True)


def test_affinity_finds_more_adapters_in_host_memory_than_round_robin():
    rates = {policy: simulate(scenario(policy=policy)).host_hit_rate(0.3) for policy in POLICIES}
    assert rates["affinity"] > rates["round_robin"] + 0.1
    assert rates["round_robin"] == pytest.approx(rates["two_choices"], abs=0.03)


@pytest.mark.parametrize("policy", POLICIES)
def test_more_host_memory_finds_more(policy: str):
    rates = [
        simulate(scenario(made_up_times(host_adapters=size), policy=policy)).host_hit_rate(0.3)
        for size in (40, 100, 400, 800)
    ]
    assert rates == sorted(rates)


@pytest.mark.parametrize("policy", POLICIES)
def test_more_replicas_answer_sooner(policy: str):
    p99 = [
        simulate(scenario(policy=policy, replicas=n)).first_token_quantiles([0.99], 0.3)[0]
        for n in (2, 4, 8)
    ]
    assert p99 == sorted(p99, reverse=True)


def test_warm_caches_are_those_of_long_traffic():
    # With one replica and round robin the cache is a plain LRU of independent requests.
    one = scenario(policy="round_robin", replicas=1, num_requests=20_000, rate=Rate((10.0,)))
    warm = simulate(one)
    cold = simulate(replace(one, warm=False))
    from_the_start = warm.host_hit[:1000].mean()
    assert from_the_start == pytest.approx(cold.host_hit[10_000:].mean(), abs=0.04)
    assert cold.host_hit[:50].mean() < from_the_start


def test_hit_rate_of_a_cache_agrees_with_ches_approximation():
    from scipy.optimize import brentq

    from cluster.capacity.simulation.traffic import zipf_weights

    weights = zipf_weights(800, 1.0)
    window = brentq(lambda t: (1 - np.exp(-weights * t)).sum() - 100, 1, 1e6)
    expected = float((weights * (1 - np.exp(-weights * window))).sum())
    one = scenario(policy="round_robin", replicas=1, num_requests=30_000, rate=Rate((5.0,)))
    assert simulate(one).host_hit_rate() == pytest.approx(expected, abs=0.015)


def test_lone_request_takes_the_sum_of_its_parts():
    times = made_up_times()
    alone = scenario(
        times,
        replicas=1,
        num_requests=1,
        warm=False,
        prompt=Lengths(100),
        output=Lengths(11),
        num_adapters=1,
    )
    outcome = simulate(alone)
    # A load, which fills a slot too; one step with the prompt; then ten steps of one token.
    first = 0.005 + 0.02 + (0.01 + 100 * 0.0001 + 0.002)
    assert outcome.first_token[0] == pytest.approx(first)
    assert outcome.finished[0] == pytest.approx(first + 10 * (0.01 + 0.0005))
    assert outcome.gaps.quantile(0.5) == pytest.approx(0.0105, rel=0.01)


def test_prompt_longer_than_a_step_is_read_in_several():
    times = made_up_times(max_num_batched_tokens=64, load_seconds=0, load_blocking_seconds=0)
    alone = scenario(
        times, replicas=1, num_requests=1, warm=False, prompt=Lengths(150), output=Lengths(1)
    )
    expected = 0.005 + 3 * 0.01 + 150 * 0.0001 + 0.002
    assert simulate(alone).first_token[0] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"replicas": 0}, "replicas"),
        ({"num_adapters": 0}, "num_adapters"),
        ({"rate": Rate((0.0,))}, "rate"),
        ({"zipf_exponent": -1.0}, "zipf_exponent"),
    ],
)
def test_scenario_that_makes_no_sense_is_refused(changes: dict, part: str):
    with pytest.raises(ConfigError, match=part):
        scenario(**changes)


def test_unknown_policy_is_refused_with_those_there_are():
    with pytest.raises(ConfigError, match="affinity, round_robin, two_choices"):
        simulate(scenario(policy="random"))


def test_quantile_of_no_gap_is_not_a_number():
    outcome = simulate(scenario(num_requests=10, output=Lengths(1)))
    assert math.isnan(outcome.gaps.quantile(0.5))
