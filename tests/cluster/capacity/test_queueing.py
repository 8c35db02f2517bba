"""One server that takes one request at a time is a queue that theory knows."""

import numpy as np
import pytest

from cluster.capacity.simulation.outcome import Outcome
from cluster.capacity.simulation.simulate import simulate
from cluster.capacity.simulation.traffic import Traffic
from tests.cluster.capacity.fleets import made_up_times, scenario

COUNT = 40_000
SERVICE_SECONDS = 0.1


def run_queue(load: float, service: np.ndarray) -> Outcome:
    """A queue of one server; `service` in seconds, told by the length of the prompt."""
    times = made_up_times(
        fixed_seconds=0,
        per_sequence_seconds=0,
        per_admission_seconds=0,
        per_prefill_token_seconds=1e-5,
        request_seconds=0,
        slot_write_seconds=0,
        max_num_seqs=1,
        max_num_batched_tokens=10**9,
        kv_cache_tokens=10**9,
    )
    arrival = np.cumsum(np.random.default_rng(5).exponential(SERVICE_SECONDS / load, COUNT))
    ones = np.ones(COUNT, np.int64)
    prompt = np.maximum(1, np.rint(service / 1e-5)).astype(np.int64)
    one_server = scenario(times, replicas=1, num_requests=COUNT, num_adapters=1)
    return simulate(one_server, Traffic(arrival, 0 * ones, prompt, ones))


def mean_and_error(values: np.ndarray, batches: int = 30) -> tuple[float, float]:
    """The mean and its standard error by batch means, since waits of neighbours are alike."""
    means = values[: len(values) // batches * batches].reshape(batches, -1).mean(axis=1)
    return float(means.mean()), float(means.std(ddof=1) / np.sqrt(batches))


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_constant_service_waits_as_in_m_d_1(load: float):
    outcome = run_queue(load, np.full(COUNT, SERVICE_SECONDS))
    mean, error = mean_and_error(outcome.first_token)
    expected = SERVICE_SECONDS * (1 + load / (2 * (1 - load)))
    assert abs(mean - expected) < 4 * error
    # Were the error large, the line above would prove nothing.
    assert error < 0.03 * expected


@pytest.mark.parametrize("load", [0.3, 0.6])
def test_exponential_service_waits_as_in_m_m_1(load: float):
    service = np.random.default_rng(6).exponential(SERVICE_SECONDS, COUNT)
    outcome = run_queue(load, service)
    mean, error = mean_and_error(outcome.first_token)
    assert abs(mean - SERVICE_SECONDS / (1 - load)) < 4 * error
    assert error < 0.03 * mean
    # In M/M/1 the time in the system is exponential.
    p50, p90 = outcome.first_token_quantiles([0.5, 0.9])
    assert p90 / p50 == pytest.approx(np.log(10) / np.log(2), rel=0.05)


def test_requests_under_way_follow_littles_law():
    outcome = simulate(scenario(num_requests=10_000))
    ongoing = np.mean([moment.ongoing for moment in outcome.moments[10:-5]])
    assert ongoing == pytest.approx(80.0 * outcome.finished.mean(), rel=0.05)


def test_full_batch_reaches_the_throughput_of_the_formula():
    from cluster.capacity.planning.throughput import most_throughput
    from cluster.capacity.simulation.traffic import Lengths, Rate

    times = made_up_times(host_adapters=2000)
    most = most_throughput(times, 64, 16)
    outcome = simulate(
        scenario(
            times,
            replicas=1,
            num_requests=3000,
            rate=Rate((10 * most.requests_per_second,)),
            num_adapters=10,
            prompt=Lengths(64),
            output=Lengths(16),
        )
    )
    reached = len(outcome.traffic) / outcome.seconds
    assert reached == pytest.approx(most.requests_per_second, rel=0.05)
