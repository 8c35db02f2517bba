"""Engines and nodes that are killed, replicas that come and go, a base that is rolled out."""

import itertools

import pytest

from benchmarks.cluster.load import Load
from benchmarks.cluster.nodes import wait_for
from tests.cluster.serving.conftest import ADAPTERS

pytestmark = pytest.mark.slow


@pytest.fixture
def load(live):
    """Four clients that ask for every adapter in turn; none may fail before its answer began."""
    headers = {"Authorization": f"Bearer {live.keys['admin']}"}
    names = itertools.cycle(ADAPTERS)
    with Load(live.nodes.url, names, clients=4, max_tokens=60, headers=headers) as load:
        load.wait_for(lambda seen: seen.ok > 20)
        yield load
    assert dict(load.outcomes.unstarted) == {}
    assert load.outcomes.cut == 0


def more_answers(load: Load, count: int = 40) -> None:
    wanted = load.outcomes.ok + count
    load.wait_for(lambda seen: seen.ok >= wanted)


def test_an_engine_that_dies_costs_no_request_and_is_replaced(live, load):
    recoveries = live.value("propulsion_cluster_replica_recovery_seconds_count")
    live.nodes.kill_engine()
    more_answers(load)
    wait_for(lambda: live.value("propulsion_cluster_replicas", state="running") == 1)
    live.nodes.wait_for_replicas(2)
    more_answers(load)
    assert live.value("propulsion_cluster_retries_total") > 0
    assert live.value("propulsion_cluster_replica_recovery_seconds_count") == recoveries + 1


def test_a_node_that_dies_costs_no_request_and_its_replica_is_replaced(live, load):
    live.nodes.kill_node()
    more_answers(load)
    wait_for(lambda: live.value("propulsion_cluster_replicas", state="running") == 1)
    live.nodes.wait_for_replicas(2)
    more_answers(load)


def test_replicas_are_added_and_taken_away_by_queues_without_a_lost_request(live, load):
    live.nodes.add_node()
    scaling = {"upscale_delay_seconds": 1, "downscale_delay_seconds": 1}
    live.deploy(min_replicas=1, max_replicas=2, target_queue=1.0, **scaling)
    live.nodes.wait_for_replicas(2)
    more_answers(load)
    live.deploy(min_replicas=1, max_replicas=2, target_queue=100.0, **scaling)
    live.nodes.wait_for_replicas(1)
    more_answers(load)
    assert load.outcomes.broken == 0
