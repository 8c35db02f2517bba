"""What stays loaded: pins, unloads on request, restarts of the engine."""

import asyncio

import pytest

from adapters import AdapterVersion
from propulsion.errors import AdapterCorruptError, ConfigError
from serving.registry.loader import EngineLostError
from serving.registry.states import adapter_states
from tests.serving.registry.bench import Bench, adapter
from tests.serving.registry.engine_stand_in import EngineClientStandIn


def test_a_pinned_adapter_is_never_dropped_and_an_unpinned_one_is():
    async def scenario():
        bench = Bench(capacity=2)
        await bench.loader.load(adapter("p"), pin=True)
        await bench.use("a", "b")
        assert set(bench.loader.residents) == {"p@v1", "b@v1"}
        assert ("pin", "p@v1") in bench.engine.calls
        await bench.loader.unpin("p@v1")
        await bench.use("c")
        assert "p@v1" not in bench.loader.residents
        assert ("unpin", "p@v1") in bench.engine.calls

    asyncio.run(scenario())


def test_pins_leave_room_for_one_more_adapter():
    async def scenario():
        bench = Bench(capacity=2)
        await bench.loader.load(adapter("a"), pin=True)
        await bench.loader.load(adapter("a"), pin=True)
        with pytest.raises(ConfigError, match="unpin another"):
            await bench.loader.load(adapter("b"), pin=True)
        assert set(bench.loader.pins) == {"a@v1"}

    asyncio.run(scenario())


def test_a_pin_that_the_engine_refuses_is_no_pin():
    async def scenario():
        bench = Bench()
        bench.engine.num_slots = 0
        with pytest.raises(ConfigError, match="all slots"):
            await bench.loader.load(adapter("a"), pin=True)
        assert not bench.loader.pins
        assert "a@v1" in bench.loader.residents

    asyncio.run(scenario())


def test_an_idle_adapter_can_be_unloaded_and_is_loaded_again_by_its_next_request():
    async def scenario():
        bench = Bench()
        await bench.use("a")
        await bench.loader.unload("a@v1")
        await bench.loader.unload("a@v1")
        assert not bench.engine.loaded
        await bench.use("a")
        assert bench.engine.loads() == ["a@v1", "a@v1"]

    asyncio.run(scenario())


def test_an_adapter_in_use_leaves_when_its_last_request_has_ended_and_only_if_forced():
    async def scenario():
        bench = Bench()
        first = await bench.loader.acquire(adapter("a"))
        with pytest.raises(ConfigError, match="in use by 1"):
            await bench.loader.unload("a@v1")
        await bench.loader.unload("a@v1", force=True)
        second = await bench.loader.acquire(adapter("a"))
        bench.loader.release(first)
        assert bench.engine.loaded
        bench.loader.release(second)
        assert not bench.loader.residents
        await bench.use("b")
        assert list(bench.engine.loaded.values()) == ["b@v1"]

    asyncio.run(scenario())


def test_a_pinned_adapter_is_unloaded_only_if_forced():
    async def scenario():
        bench = Bench()
        await bench.loader.load(adapter("a"), pin=True)
        with pytest.raises(ConfigError, match="pinned"):
            await bench.loader.unload("a@v1")
        await bench.loader.unload("a@v1", force=True)
        assert not bench.engine.loaded
        assert not bench.loader.pins

    asyncio.run(scenario())


def test_an_unload_during_a_load_waits_for_it():
    async def scenario():
        bench = Bench()
        loading = asyncio.create_task(bench.use("a"))
        await asyncio.sleep(0)
        assert bench.loader.loading
        await asyncio.gather(loading, bench.loader.unload("a@v1", force=True))
        await asyncio.sleep(0.01)
        assert not bench.engine.loaded
        assert not bench.loader.residents

    asyncio.run(scenario())


def test_after_a_restart_of_the_engine_the_pinned_adapters_come_back_and_the_others_do_not():
    async def scenario():
        bench = Bench()
        await bench.loader.load(adapter("p"), pin=True)
        before = await bench.loader.acquire(adapter("a"))
        after_restart = EngineClientStandIn()
        await bench.loader.reset(after_restart)
        assert list(bench.loader.residents) == ["p@v1"]
        assert after_restart.calls == [("load", "p@v1"), ("pin", "p@v1")]
        now = await bench.loader.acquire(adapter("a"))
        assert now.request.lora_int_id != before.request.lora_int_id
        bench.loader.release(before)
        assert now.users == 1

    asyncio.run(scenario())


def test_a_load_that_a_dead_engine_never_answered_is_made_by_the_next_engine():
    async def scenario():
        bench = Bench()
        bench.engine.is_hanging = True
        waiting = asyncio.create_task(bench.loader.acquire(adapter("a")))
        await asyncio.sleep(0.05)
        await bench.loader.reset(EngineClientStandIn())
        resident = await waiting
        assert bench.loader.residents == {"a@v1": resident}

    asyncio.run(scenario())


def test_a_load_ends_with_the_engine_that_never_answered_it():
    async def scenario():
        bench = Bench()
        bench.engine.is_hanging = True
        waiting = asyncio.create_task(bench.loader.acquire(adapter("a")))
        await asyncio.sleep(0.05)
        bench.loader.lose_engine()
        with pytest.raises(EngineLostError, match="a@v1"):
            await waiting
        assert not bench.loader.loading
        await bench.loader.reset(EngineClientStandIn())
        # The adapter is not to blame.
        assert (await bench.loader.acquire(adapter("a"))).users == 1

    asyncio.run(scenario())


def test_a_pinned_adapter_that_does_not_come_back_does_not_keep_the_others_away():
    async def scenario():
        bench = Bench()
        for name in "ab":
            await bench.loader.load(adapter(name), pin=True)

        def damaged(version: AdapterVersion) -> None:
            if version.name == "a":
                raise AdapterCorruptError("damaged")

        bench.check = damaged
        await bench.loader.reset()
        states = await adapter_states(bench.loader)
        assert (states["a@v1"].state, states["a@v1"].pinned) == ("failed", True)
        assert states["b@v1"].pinned

    asyncio.run(scenario())
