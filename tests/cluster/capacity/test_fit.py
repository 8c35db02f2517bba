import numpy as np
import pytest

from cluster.capacity.measuring.fit import fit_steps
from cluster.capacity.measuring.measure import Grid, check_options
from cluster.capacity.measuring.servers import ServerOptions
from cluster.capacity.measuring.waves import Timing, Wave
from cluster.capacity.simulation.gaps import GapHistogram
from cluster.capacity.simulation.replica import Requests, SimulatedReplica
from cluster.capacity.times import ReplicaTimes
from propulsion.errors import ConfigError
from tests.cluster.capacity.fleets import made_up_times


def simulated_wave(times: ReplicaTimes, wave: Wave) -> Timing:
    """The wave at a simulated replica; its requests come a moment after one another."""
    c = wave.concurrency
    requests = Requests([0] * c, [wave.prompt_tokens] * c, [wave.output_tokens] * c)
    replica = SimulatedReplica(times, requests, GapHistogram(), held=[0])
    for request in range(c):
        replica.enqueue(request, 0.0)
    first, now = [], 0.0
    while replica.busy_until is not None:
        now = replica.busy_until
        first += [now] * len(replica.complete(now).first)
    way = times.request_seconds
    return Timing(now + way, float(np.mean(first)) + way, min(first) + way)


def test_fit_finds_the_parts_that_waves_were_made_of():
    times = made_up_times(max_num_batched_tokens=2048)
    timings = {wave: [simulated_wave(times, wave)] * 3 for wave in Grid().waves()}
    step, way, fit = fit_steps(timings)
    for name, value in times.step.model_dump().items():
        assert getattr(step, name) == pytest.approx(value, rel=0.1), name
    assert way == pytest.approx(times.request_seconds, rel=0.3)
    assert fit.worst_error < 0.02
    assert fit.spread == 0


def test_noise_shows_in_the_reported_errors():
    times, generator = made_up_times(), np.random.default_rng(0)
    timings = {}
    for wave in Grid().waves():
        exact = simulated_wave(times, wave)
        noisy = exact.makespan * generator.lognormal(0, 0.2, 5)
        timings[wave] = [Timing(m, exact.first_token_mean, 0.0) for m in noisy]
    _, _, fit = fit_steps(timings)
    assert fit.spread > 0.1
    assert fit.worst_error > 0.05


@pytest.mark.parametrize(
    ("options", "grid", "part"),
    [
        ({"max_num_seqs": 8}, {}, "--max-num-seqs"),
        ({"max_adapters": 8}, {}, "--max-adapters"),
        ({"max_cpu_adapters": 64}, {}, "--max-cpu-adapters"),
        ({}, {"prompt_tokens": (600,), "concurrency": (1,)}, "--max-model-len"),
        ({"max_num_batched_tokens": 1024}, {}, "--max-num-batched-tokens"),
    ],
)
def test_load_that_replicas_cannot_run_is_refused(tmp_path, options, grid, part):
    with pytest.raises(ConfigError, match=part):
        check_options(ServerOptions(tmp_path, tmp_path, **options), Grid(**grid))
