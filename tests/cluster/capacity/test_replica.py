"""What a batch may hold."""

import numpy as np

from cluster.capacity.simulation.gaps import GapHistogram
from cluster.capacity.simulation.replica import Requests, SimulatedReplica
from tests.cluster.capacity.fleets import made_up_times


def drain(replica: SimulatedReplica) -> list[tuple[float, list[int]]]:
    """Run until idle; (seconds, requests that ended) of each event."""
    ended = []
    while replica.busy_until is not None:
        now = replica.busy_until
        ended.append((now, replica.complete(now).last))
    return ended


def make(num: int, adapters: list[int], **changes: float) -> SimulatedReplica:
    requests = Requests(adapters, [10] * num, [5] * num)
    return SimulatedReplica(made_up_times(**changes), requests, GapHistogram())


def batches(replica: SimulatedReplica, num: int) -> int:
    """Groups that ended together, of requests that all come at once."""
    for request in range(num):
        replica.enqueue(request, 0.0)
    ended = [last for _, last in drain(replica) if last]
    assert sorted(request for last in ended for request in last) == list(range(num))
    return len(ended)


def test_requests_that_come_during_a_step_share_the_next():
    assert batches(make(9, [0] * 9), 9) == 2


def test_a_batch_holds_no_more_sequences_than_it_may():
    assert batches(make(9, [0] * 9, max_num_seqs=3), 9) >= 3


def test_a_batch_mixes_no_more_adapters_than_there_are_slots():
    alike, distinct = (make(8, ids, batch_adapters=2) for ids in ([0, 1] * 4, list(range(8))))
    assert batches(alike, 8) == 2
    assert batches(distinct, 8) >= 4
    assert distinct.slot_misses == 8


def test_request_whose_adapter_has_no_slot_lets_others_pass():
    replica = make(4, [0, 1, 0, 0], batch_adapters=1)
    for request in range(4):
        replica.enqueue(request, 0.0)
    order = [request for _, last in drain(replica) for request in last]
    assert order[-1] == 1


def test_key_value_cache_bounds_the_batch():
    assert batches(make(6, [0] * 6, kv_cache_tokens=30), 6) >= 3


def test_request_cuts_a_run_of_steps_at_the_end_of_the_step_it_comes_in():
    replica = make(2, [0, 0])
    replica.enqueue(0, 0.0)
    replica.complete(first := replica.busy_until)
    step = 0.0105
    assert np.isclose(replica.busy_until, first + 4 * step)
    replica.enqueue(1, first + 1.5 * step)
    assert np.isclose(replica.busy_until, first + 2 * step)
