import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cluster.serving.affinity import AffinityConfig, AffinityRouter, Choice

QUICK = AffinityConfig(popularity_window=80, free_queue=2)


def router_of(num_replicas: int, config: AffinityConfig = QUICK) -> AffinityRouter:
    router = AffinityRouter(config)
    router.set_replicas(f"r{i}" for i in range(num_replicas))
    return router


def make_popular(router: AffinityRouter, adapter: str, share: float) -> None:
    for i in range(QUICK.popularity_window // 2):
        popular = i < share * QUICK.popularity_window // 2
        router.count(adapter if popular else f"other-{i}")


def test_an_adapters_requests_meet_on_one_replica():
    router = router_of(10)
    homes = {router.rank("sst2")[0] for _ in range(20)}
    assert len(homes) == 1
    assert homes.pop().route == "home"


def test_adapters_are_spread_over_the_replicas():
    router = router_of(4)
    counts = Counter(router.rank(f"a{i}")[0].replica for i in range(1000))
    assert set(counts) == {"r0", "r1", "r2", "r3"}
    assert max(counts.values()) < 400


def test_a_home_with_too_long_a_queue_is_left_for_the_next_on_the_ring():
    router = router_of(5)
    home, second = router.rank("sst2")[:2]
    router.set_queue_length(home.replica, 10)
    assert router.rank("sst2")[0] == Choice(second.replica, "spill")


def test_a_spill_prefers_a_replica_that_holds_the_adapter():
    router = router_of(5)
    home, *_, last = router.rank("sst2")
    router.set_queue_length(home.replica, 10)
    router.set_adapters(last.replica, ["sst2"])
    assert router.rank("sst2")[0].replica == last.replica


def test_a_short_queue_never_drives_requests_away():
    router = router_of(5)
    home = router.rank("sst2")[0]
    router.set_queue_length(home.replica, QUICK.free_queue - 1)
    assert router.rank("sst2")[0] == home


def test_a_long_queue_among_equally_long_ones_does_not_either():
    router = router_of(5)
    home = router.rank("sst2")[0]
    for name in router.replicas:
        router.set_queue_length(name, 100)
    assert router.rank("sst2")[0] == home


def test_a_popular_adapter_has_homes_by_its_share():
    router = router_of(10)
    make_popular(router, "hot", 0.5)
    assert router.num_homes("hot") == 4
    assert router.num_homes("cold") == 1


def test_a_popular_adapters_requests_go_to_the_home_that_answers_soonest():
    router = router_of(10)
    make_popular(router, "hot", 0.5)
    used = set()
    for _ in range(4 * QUICK.free_queue):
        choice = router.rank("hot")[0]
        used.add(choice)
        router.set_queue_length(choice.replica, router.queue_length(choice.replica) + 1)
    assert len({choice.replica for choice in used}) == 4
    assert {choice.route for choice in used} == {"home", "replica_of_hot"}


def test_of_two_homes_the_one_that_holds_the_adapter_is_preferred_until_its_queue_is_longer():
    router = router_of(4, QUICK.model_copy(update={"free_queue": 50}))
    make_popular(router, "hot", 0.6)
    homes = [choice.replica for choice in router.rank("hot") if choice.route != "spill"]
    assert len(homes) == 2
    router.set_adapters(homes[1], [], ["hot"])
    assert router.rank("hot")[0].replica == homes[1]
    router.set_adapters(homes[0], ["hot"])
    assert router.rank("hot")[0].replica == homes[0]
    router.set_queue_length(homes[0], 1)
    assert router.rank("hot")[0].replica == homes[1]


def test_a_replica_to_avoid_is_not_named():
    router = router_of(3)
    home = router.rank("sst2")[0].replica
    ranked = router.rank("sst2", avoid={home})
    assert home not in {choice.replica for choice in ranked}
    assert ranked[0].route == "spill"
    assert router.rank("sst2", avoid=router.replicas) == []
    assert router.rank(None, avoid=router.replicas) == []


def test_the_base_goes_to_a_short_queue():
    router = router_of(2)
    router.set_queue_length("r0", 5)
    assert {router.rank(None)[0].replica for _ in range(10)} == {"r1"}


def test_without_replicas_there_is_no_choice():
    router = AffinityRouter()
    assert router.rank("sst2") == []
    assert router.rank(None) == []


def test_what_is_known_of_replicas_that_stay_is_kept():
    router = router_of(2)
    router.set_queue_length("r0", 5)
    router.set_adapters("r0", ["a"], ["b"])
    router.set_replicas(["r0", "r7"])
    assert router.queue_length("r0") == 5
    assert router.holds("r0", "a")
    assert router.holds("r0", "b")
    assert not router.holds("r7", "a")


def test_an_adapter_on_its_way_counts_until_the_replica_says_what_it_holds():
    router = router_of(1)
    router.add_adapter("r0", "a")
    assert router.holds("r0", "a")
    router.set_adapters("r0", [], ["b"])
    assert not router.holds("r0", "a")


def test_names_that_clients_make_up_take_no_more_and_more_memory():
    router = router_of(1)
    for i in range(10_000):
        router.add_adapter("r0", f"a{i}")
    assert sum(router.holds("r0", f"a{i}") for i in range(10_000)) < 1000
    assert router.holds("r0", "a9999")


def test_what_is_said_of_an_unknown_replica_is_ignored():
    router = router_of(1)
    router.set_queue_length("gone", 5)
    router.set_adapters("gone", ["a"])
    assert router.queue_length("gone") == 0
    assert not router.holds("gone", "a")


@given(
    st.integers(1, 30),
    st.lists(st.integers(0, 40), max_size=30),
    st.integers(0, 5),
    st.sampled_from(["hot", "cold", None]),
)
def test_choices_are_distinct_replicas_that_there_are(num_replicas, queues, fallbacks, adapter):
    router = router_of(num_replicas, QUICK.model_copy(update={"fallbacks": fallbacks}))
    make_popular(router, "hot", 0.7)
    for index, queue in enumerate(queues):
        router.set_queue_length(f"r{index}", queue)
    chosen = [choice.replica for choice in router.rank(adapter)]
    assert len(set(chosen)) == len(chosen)
    assert set(chosen) <= set(router.replicas)
    assert 1 <= len(chosen) <= 1 + fallbacks


def test_no_queue_outgrows_the_bound_while_others_have_room():
    router = router_of(8)
    draws = random.Random(1)
    for _ in range(4000):
        # One adapter in three requests: far more than a fair share.
        adapter = "hot" if draws.random() < 0.3 else f"a{draws.randrange(50)}"
        router.count(adapter)
        name = router.rank(adapter)[0].replica
        router.set_queue_length(name, router.queue_length(name) + 1)
    queues = [router.queue_length(name) for name in router.replicas]
    assert max(queues) <= 1.25 * (4000 / 8) + 1


def test_options_that_make_no_sense_are_refused():
    with pytest.raises(ValidationError):
        AffinityConfig(load_factor=1)
    with pytest.raises(ValidationError):
        AffinityConfig(replicas=3)
