import asyncio
import gc
import logging
import random
import weakref
from collections import Counter

import pytest

from adapters import AdapterVersion
from propulsion.errors import AdapterNotFoundError, ConfigError, StoreUnavailableError
from serving.registry.references import parse_model
from serving.registry.resolution import Resolver, require_permission
from serving.registry.servable import single
from serving.registry.splits import request_key
from serving.security.principal import Principal
from tests.serving.registry.stores import publish


class Bench:
    """A resolver with the loaded adapters, and a clock that is turned by hand."""

    def __init__(self, store, ttl_seconds: float = 1.0):
        self.now = 0.0
        self.store = store
        self.residents = {}
        self.resolver = Resolver(
            store, self.residents, ttl_seconds, random.Random(3).random, lambda: self.now
        )

    async def resolve(self, model: str, user: str | None = None) -> str:
        resolution = await self.resolver.resolve(parse_model(model), request_key(user, None))
        return resolution.servable.reference

    async def use(self, model: str) -> None:
        """Resolve it, and have the engine hold it from now on."""
        resolution = await self.resolver.resolve(parse_model(model))
        self.hold(resolution.servable)

    def hold(self, servable) -> None:
        self.residents[servable.reference] = _Resident(servable)


class _Resident:
    def __init__(self, servable):
        self.servable = servable


def run(scenario) -> None:
    asyncio.run(scenario())


def test_names_versions_aliases_and_blends_become_exact_versions(store):
    publish(store, "a", 3)
    publish(store, "b")
    store.set_alias("a", "prod", "v2")

    async def scenario():
        bench = Bench(store)
        assert await bench.resolve("a") == "a@v3"
        assert await bench.resolve("a@v1") == "a@v1"
        assert await bench.resolve("a@prod") == "a@v2"
        assert await bench.resolve("b:0.3+a@prod:0.7") == "a@v2:0.7+b@v1:0.3"
        assert await bench.resolve("a@prod:0.5+a@v2:0.5") == "a@v2"

    run(scenario)


@pytest.mark.parametrize("model", ["nobody", "a@v9", "a@prod", "a+nobody"])
def test_what_is_not_in_the_store_is_not_found(store, model):
    publish(store, "a")

    async def scenario():
        with pytest.raises(AdapterNotFoundError):
            await Bench(store).resolve(model)

    run(scenario)


def test_a_result_counts_for_a_second_and_a_change_through_this_server_at_once(store):
    publish(store, "a", 2)

    async def scenario():
        bench = Bench(store)
        assert await bench.resolve("a") == "a@v2"
        store.set_alias("a", "latest", "v1")
        bench.now = 0.9
        assert await bench.resolve("a") == "a@v2"
        bench.now = 1.0
        assert await bench.resolve("a") == "a@v1"
        store.set_alias("a", "latest", "v2")
        bench.resolver.forget("a")
        assert await bench.resolve("a") == "a@v2"

    run(scenario)


def test_a_change_counts_although_a_look_up_from_before_it_ends_after_it(store):
    publish(store, "a", 2)

    async def scenario():
        bench = Bench(store)
        before = asyncio.create_task(bench.resolve("a"))
        while not store.num_reads:
            await asyncio.sleep(0)
        store.set_alias("a", "latest", "v1")
        bench.resolver.forget("a")
        await before
        assert await bench.resolve("a") == "a@v1"

    run(scenario)


def test_many_requests_at_once_ask_the_store_once(store):
    publish(store, "a")

    async def scenario():
        bench = Bench(store)
        await asyncio.gather(*(bench.resolve("a") for _ in range(50)))
        assert store.num_reads == 2, "one for the splits, one for the version"

    run(scenario)


def test_a_known_result_is_given_without_a_turn_of_the_event_loop(store):
    publish(store, "a")

    async def scenario():
        bench = Bench(store)
        await bench.resolve("a")
        resolving = bench.resolve("a")
        with pytest.raises(StopIteration) as given:
            resolving.send(None)
        assert given.value.value == "a@v1"

    run(scenario)


def test_a_loaded_version_needs_no_store(store):
    publish(store, "a")

    async def scenario():
        bench = Bench(store)
        bench.hold(single(AdapterVersion("a", "v1", store.path / "a" / "v1")))
        assert await bench.resolve("a@v1") == "a@v1"
        assert store.num_reads == 0

    run(scenario)


def test_a_split_sends_shares_of_the_requests_to_its_versions(store):
    publish(store, "a", 4)
    store.set_alias("a", "prod", "v3")
    store.set_split("a", "prod", {"v3": 0.9, "v4": 0.1})

    async def scenario():
        bench = Bench(store)
        drawn = Counter([await bench.resolve("a@prod") for _ in range(2000)])
        assert set(drawn) == {"a@v3", "a@v4"}
        assert 150 < drawn["a@v4"] < 250
        assert await bench.resolve("a") == "a@v4", "other aliases are not split"
        assert (await bench.resolver.resolve(parse_model("a@prod"))).was_drawn
        assert not (await bench.resolver.resolve(parse_model("a"))).was_drawn

    run(scenario)


def test_a_user_keeps_its_version_of_a_split_also_on_another_server(store):
    publish(store, "a", 2)
    store.set_split("a", "latest", {"v1": 0.5, "v2": 0.5})

    async def scenario():
        users = [f"user-{i}" for i in range(40)]
        first, second = Bench(store), Bench(store)
        drawn = [await first.resolve("a", user) for user in users]
        assert drawn == [await first.resolve("a", user) for user in reversed(users)][::-1]
        assert drawn == [await second.resolve("a", user) for user in users]
        assert len(set(drawn)) == 2

    run(scenario)


def test_a_split_counts_in_a_blend(store):
    publish(store, "a", 2)
    publish(store, "b")
    store.set_split("a", "latest", {"v1": 1.0, "v2": 1.0})

    async def scenario():
        bench = Bench(store)
        drawn = {await bench.resolve("a:0.5+b:0.5") for _ in range(50)}
        assert drawn == {"a@v1:0.5+b@v1:0.5", "a@v2:0.5+b@v1:0.5"}

    run(scenario)


def test_weights_that_cancel_out_once_resolved_are_refused(store):
    publish(store, "a")

    async def scenario():
        with pytest.raises(ConfigError, match="add up to 0"):
            await Bench(store).resolve("a:1+a@v1:-1")

    run(scenario)


def test_while_the_store_is_away_what_is_loaded_is_served_as_it_last_was(store, caplog):
    publish(store, "a")
    publish(store, "b")

    async def scenario():
        bench = Bench(store)
        await bench.use("a")
        await bench.resolve("b")
        store.is_away = True
        for bench.now in range(10, 70):
            assert await bench.resolve("a") == "a@v1"
        with pytest.raises(StoreUnavailableError):
            await bench.resolve("b")
        with pytest.raises(StoreUnavailableError):
            await bench.resolve("never-seen")
        with caplog.at_level(logging.WARNING):
            assert caplog.text.count("The store is away") == 1

        store.is_away = False
        publish(store, "a")
        bench.now = 80.0
        await bench.resolve("a")
        for _ in range(1000):
            if await bench.resolve("a") == "a@v2":
                break
            await asyncio.sleep(0.001)
        else:
            pytest.fail("the store is back, and nobody asked it")
        assert await bench.resolve("b") == "b@v1"

    run(scenario)


def test_while_the_store_is_away_only_the_first_request_for_something_else_waits_for_it(store):
    async def scenario():
        bench = Bench(store)
        store.is_away = True
        for i in range(20):
            with pytest.raises(StoreUnavailableError):
                await bench.resolve(f"a-{i}")
        assert store.num_reads == 1
        bench.now = 1.0
        with pytest.raises(StoreUnavailableError):
            await bench.resolve("a-0")
        assert store.num_reads == 2

    run(scenario)


def test_while_the_store_is_away_a_split_is_drawn_among_what_is_loaded(store):
    publish(store, "a", 2)
    store.set_split("a", "latest", {"v1": 0.01, "v2": 0.99})

    async def scenario():
        bench = Bench(store)
        await bench.resolve("a")
        await bench.use("a@v1")
        store.is_away = True
        bench.now = 10.0
        assert {await bench.resolve("a") for _ in range(20)} == {"a@v1"}

    run(scenario)


def test_what_is_neither_new_nor_loaded_is_let_go(store):
    for i in range(20):
        publish(store, f"a-{i}")

    async def scenario():
        bench = Bench(store)
        resolved = []
        for i in range(20):
            bench.now += 20
            resolution = await bench.resolver.resolve(parse_model(f"a-{i}"))
            resolved.append(weakref.ref(resolution.servable))
            if i == 3:
                bench.hold(resolution.servable)
            del resolution
        gc.collect()
        kept = [i for i, servable in enumerate(resolved) if servable() is not None]
        assert kept == [3, 19]
        store.is_away = True
        bench.now += 20
        assert await bench.resolve("a-3") == "a-3@v1"

    run(scenario)


def test_permission_is_decided_for_every_part_before_the_store_is_asked(store):
    publish(store, "mine")
    publish(store, "theirs")
    principal = Principal("k", "t", "inference", adapters=("mine", "my-*"))
    require_permission(parse_model("mine@v1:0.5+my-b"), principal)
    for model in ("theirs", "mine+theirs", "mine+nobody"):
        with pytest.raises(AdapterNotFoundError):
            require_permission(parse_model(model), principal)
    assert store.num_reads == 0
