"""Engines and nodes that are killed, replicas that come and go, a base that is rolled out."""

import itertools
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest

from benchmarks.cluster.load import Load
from benchmarks.cluster.nodes import wait_for
from tests.cluster.serving.conftest import ADAPTERS
from tests.serving import tiny

pytestmark = [pytest.mark.slow, pytest.mark.nightly]


@pytest.fixture
def traffic(live):
    """Clients that ask for models in turn; none may fail before its answer began."""

    @contextmanager
    def ask(clients: int, models=tuple(ADAPTERS)):
        headers = {"Authorization": f"Bearer {live.keys['admin']}"}
        names = itertools.cycle(models)
        options = {"clients": clients, "max_tokens": 60, "headers": headers}
        with Load(live.nodes.url, names, **options) as load:
            more_answers(load, 20)
            yield load
        assert dict(load.outcomes.unstarted) == {}
        assert load.outcomes.cut == 0

    return ask


def more_answers(load: Load, count: int = 40) -> None:
    wanted = load.outcomes.ok + count
    load.wait_for(lambda seen: seen.ok >= wanted)


def replaced(live) -> None:
    wait_for(lambda: live.value("propulsion_cluster_replicas", state="running") == 1)
    live.nodes.wait_for_replicas(2)


def test_an_engine_that_dies_costs_no_request_and_is_replaced(live, traffic):
    recoveries = live.value("propulsion_cluster_replica_recovery_seconds_count")
    with traffic(4) as load:
        live.nodes.kill_engine()
        replaced(live)
        more_answers(load)
    assert live.value("propulsion_cluster_retries_total") > 0
    assert live.value("propulsion_cluster_replica_recovery_seconds_count") == recoveries + 1


def test_a_stream_that_had_begun_ends_with_an_error_event(live):
    failed = live.value("propulsion_cluster_failed_requests_total")
    body = {"prompt": "x", "max_tokens": 200, "n": 4, "ignore_eos": True, "stream": True}
    with ExitStack() as opened, ThreadPoolExecutor() as pool:
        streams = []
        for name in ADAPTERS:
            request = live.client.stream("POST", "/v1/completions", json={**body, "model": name})
            lines = opened.enter_context(request).iter_lines()
            streams.append((next(lines), lines))
        live.nodes.kill_engine()
        answers = list(pool.map(lambda stream: [stream[0], *stream[1]], streams))
    assert all(lines[0].startswith("data: {") for lines in answers)
    # Those of the other replica went on to their ends.
    assert all([line for line in lines if line][-1] == "data: [DONE]" for lines in answers)
    broken = [lines for lines in answers if any('"error"' in line for line in lines)]
    assert 0 < len(broken) < len(answers)
    assert live.value("propulsion_cluster_failed_requests_total") == failed + len(broken)
    replaced(live)


def test_a_node_that_dies_costs_no_request_and_its_replica_is_replaced(live, traffic):
    recoveries = live.value("propulsion_cluster_replica_recovery_seconds_count")
    with traffic(4) as load:
        live.nodes.kill_node()
        replaced(live)
        more_answers(load)
    live.nodes.add_node()
    assert live.value("propulsion_cluster_replica_recovery_seconds_count") == recoveries + 1


def test_replicas_follow_the_queues_up_and_down_without_a_lost_request(live, traffic):
    delays = {"upscale_delay_seconds": 1, "downscale_delay_seconds": 1}
    live.deploy(min_replicas=1, max_replicas=2, target_queue=2.0, **delays)
    for clients, replicas in ((1, 1), (4, 2), (1, 1)):
        with traffic(clients) as load:
            live.nodes.wait_for_replicas(replicas)
            more_answers(load)
        assert load.outcomes.broken == 0


def test_a_new_base_is_rolled_out_without_a_lost_request(live, traffic, tmp_path):
    new = tiny.make_base(tmp_path / live.base.name, seed=1)
    old_answer, new_answer = (
        tiny.reference_tokens(folder, None, [tiny.PROMPTS[0]], 12)[0] for folder in (live.base, new)
    )
    assert old_answer != new_answer
    with traffic(1, [live.base.name]) as load:
        more_answers(load)
        assert answer(live) == old_answer
        live.deploy(min_replicas=1, base=new)
        more_answers(load)
        live.nodes.wait_for_replicas(1)
        assert answer(live) == new_answer
    assert load.outcomes.broken == 0


def answer(live) -> list[int]:
    return live.complete(live.base.name, tiny.PROMPTS[0]).json()["choices"][0]["token_ids"]
