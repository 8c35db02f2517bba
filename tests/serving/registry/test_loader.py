import asyncio

import pytest

from adapters import AdapterVersion
from propulsion.errors import AdapterCorruptError, BaseMismatchError, StoreUnavailableError
from serving.registry.servable import Servable
from serving.registry.states import adapter_states
from tests.serving.registry.bench import Bench, adapter


def test_concurrent_first_uses_load_an_adapter_once():
    async def scenario():
        bench = Bench()
        await asyncio.gather(*(bench.loader.acquire(adapter("a")) for _ in range(20)))
        assert bench.engine.calls == [("load", "a@v1")]
        assert bench.loader.residents["a@v1"].users == 20
        assert bench.sample("adapter_loads_total") == 1
        assert bench.sample("adapters_loaded") == 1
        assert bench.open == []

    asyncio.run(scenario())


def test_a_resident_adapter_is_given_without_a_turn_of_the_event_loop():
    async def scenario():
        bench = Bench()
        await bench.use("a")
        acquiring = bench.loader.acquire(adapter("a"))
        with pytest.raises(StopIteration) as given:
            acquiring.send(None)
        assert given.value.value is bench.loader.residents["a@v1"]

    asyncio.run(scenario())


def test_versions_of_one_name_are_different_adapters_to_the_engine():
    async def scenario():
        bench = Bench()
        first = await bench.loader.acquire(adapter("a", 1))
        second = await bench.loader.acquire(adapter("a", 2))
        assert first.request.lora_int_id != second.request.lora_int_id
        assert (first.request.lora_name, second.request.lora_name) == ("a@v1", "a@v2")
        assert second.request.lora_path == "/store/a/v2"

    asyncio.run(scenario())


def test_an_adapter_in_use_is_never_dropped_and_an_idle_one_is():
    async def scenario():
        bench = Bench(capacity=2)
        await bench.loader.acquire(adapter("busy"))
        await bench.use("idle")
        await bench.loader.acquire(adapter("c"))
        assert set(bench.loader.residents) == {"busy@v1", "c@v1"}
        assert ("unload", "idle@v1") in bench.engine.calls
        await bench.loader.acquire(adapter("d"))
        assert set(bench.loader.residents) == {"busy@v1", "c@v1", "d@v1"}

    asyncio.run(scenario())


def test_the_least_recently_used_idle_adapter_is_dropped_first():
    async def scenario():
        bench = Bench(capacity=2)
        await bench.use("a", "b", "a", "c")
        assert set(bench.loader.residents) == {"a@v1", "c@v1"}
        assert sorted(bench.engine.loaded.values()) == ["a@v1", "c@v1"]

    asyncio.run(scenario())


def test_an_adapter_taken_into_use_while_room_is_made_stays():
    async def scenario():
        bench = Bench(capacity=3)
        await bench.use("a", "b", "c")
        loads = asyncio.gather(*(bench.loader.acquire(adapter(name)) for name in "defa"))
        await loads
        assert bench.engine.loaded.keys() == {
            resident.request.lora_int_id for resident in bench.loader.residents.values()
        }
        assert {f"{name}@v1" for name in "defa"} == set(bench.loader.residents)

    asyncio.run(scenario())


class DamagedOnce:
    """A check that only the first adapter fails."""

    def __init__(self) -> None:
        self.checks: list[str] = []

    def __call__(self, version: AdapterVersion) -> None:
        self.checks.append(version.reference)
        if len(self.checks) == 1:
            raise AdapterCorruptError("damaged")


def test_a_bad_adapter_fails_all_who_wait_for_it_and_is_tried_again_after_seconds():
    damaged_once = DamagedOnce()

    async def scenario():
        bench = Bench(check=damaged_once)
        results = await asyncio.gather(
            *(bench.loader.acquire(adapter("a")) for _ in range(3)), return_exceptions=True
        )
        assert [type(result) for result in results] == [AdapterCorruptError] * 3
        assert bench.engine.calls == []
        assert bench.sample("load_failures_total", reason="corrupt") == 1
        bench.now = 4.9
        with pytest.raises(AdapterCorruptError, match="damaged"):
            await bench.loader.acquire(adapter("a"))
        assert len(damaged_once.checks) == 1
        bench.now = 5.0
        await bench.loader.acquire(adapter("a"))
        assert bench.engine.loads() == ["a@v1"]
        assert bench.loader.residents["a@v1"].users == 1

    asyncio.run(scenario())


def test_an_operator_may_try_a_failed_load_again_at_once():
    damaged_once = DamagedOnce()

    async def scenario():
        bench = Bench(check=damaged_once)
        with pytest.raises(AdapterCorruptError):
            await bench.loader.load(adapter("a"))
        assert (await adapter_states(bench.loader))["a@v1"].state == "failed"
        await bench.loader.load(adapter("a"))
        assert (await adapter_states(bench.loader))["a@v1"].error is None

    asyncio.run(scenario())


def test_a_store_that_was_away_is_asked_again_sooner_than_a_bad_adapter():
    async def scenario():
        def away(version: AdapterVersion) -> None:
            raise StoreUnavailableError("away")

        bench = Bench(check=away)
        with pytest.raises(StoreUnavailableError):
            await bench.loader.acquire(adapter("a"))
        bench.check = lambda version: None
        bench.now = 1.0
        await bench.loader.acquire(adapter("a"))

    asyncio.run(scenario())


def test_an_adapter_that_one_rank_refuses_is_taken_off_the_others():
    async def scenario():
        bench = Bench()
        with pytest.raises(BaseMismatchError, match="does not fit"):
            await bench.loader.acquire(adapter("misfit"))
        assert bench.engine.calls == [("load", "misfit@v1"), ("unload", "misfit@v1")]
        assert not bench.loader.residents
        assert bench.open == []

    asyncio.run(scenario())


def test_a_client_that_leaves_does_not_stop_the_load_that_others_wait_for():
    async def scenario():
        bench = Bench()
        first = asyncio.create_task(bench.loader.acquire(adapter("a")))
        second = asyncio.create_task(bench.loader.acquire(adapter("a")))
        await asyncio.sleep(0)
        first.cancel()
        await second
        assert bench.loader.residents["a@v1"].users == 1
        assert bench.engine.calls == [("load", "a@v1")]

    asyncio.run(scenario())


def test_a_blend_is_one_adapter_of_its_own_made_of_its_parts_files():
    async def scenario():
        bench = Bench()
        parts = [(adapter(name).parts[0][0], weight) for name, weight in (("a", 0.7), ("b", 0.3))]
        blend = Servable("a@v1:0.7+b@v1:0.3", tuple(parts))
        await bench.loader.acquire(blend)
        assert list(bench.loader.residents) == [blend.reference]
        assert bench.engine.paths[blend.reference] == (
            'propulsion-blend:[["/store/a/v1", 0.7], ["/store/b/v1", 0.3]]'
        )

    asyncio.run(scenario())


def test_a_blend_with_a_part_that_cannot_be_read_lets_go_of_the_others():
    def only_a(version: AdapterVersion) -> None:
        if version.name != "a":
            raise AdapterCorruptError(version.name)

    async def scenario():
        bench = Bench(check=only_a)
        parts = tuple((adapter(name).parts[0][0], 0.5) for name in "ab")
        with pytest.raises(AdapterCorruptError, match="b"):
            await bench.loader.acquire(Servable("a@v1:0.5+b@v1:0.5", parts))
        assert bench.open == []

    asyncio.run(scenario())
