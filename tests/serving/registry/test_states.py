import asyncio

import pytest

from propulsion.errors import BaseMismatchError
from serving.registry.states import adapter_states
from tests.serving.registry.bench import Bench, adapter


def test_states_tell_where_each_adapter_is():
    async def scenario():
        bench = Bench()
        bench.engine.num_slots = 1
        await bench.use("slotted", "hosted")
        busy = await bench.loader.acquire(adapter("hosted"))
        with pytest.raises(BaseMismatchError):
            await bench.use("misfit")
        loading = asyncio.create_task(bench.use("coming"))
        await asyncio.sleep(0)
        states = await adapter_states(bench.loader)
        assert {reference: state.state for reference, state in states.items()} == {
            "slotted@v1": "slot",
            "hosted@v1": "host",
            "misfit@v1": "failed",
            "coming@v1": "loading",
        }
        assert states["slotted@v1"].slot == 1
        assert states["hosted@v1"].active_requests == 1
        assert states["misfit@v1"].error == "does not fit"
        assert states["hosted@v1"].loaded_at <= states["hosted@v1"].last_used
        bench.loader.release(busy)
        await loading

    asyncio.run(scenario())


def test_states_are_told_while_the_engine_is_dead():
    async def scenario():
        bench = Bench()
        await bench.use("a")
        bench.engine.error = RuntimeError("dead")
        assert (await adapter_states(bench.loader))["a@v1"].state == "host"

    asyncio.run(scenario())


def test_hits_misses_and_evictions_are_counted():
    async def scenario():
        bench = Bench(capacity=1)
        await bench.use("a", "a", "b")
        await bench.loader.unload("b@v1")
        assert bench.sample("host_cache_hits_total") == 1
        assert bench.sample("host_cache_misses_total") == 2
        assert bench.sample("evictions_total", level="host") == 1

    asyncio.run(scenario())
