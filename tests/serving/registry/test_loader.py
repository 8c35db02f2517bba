import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from adapters import AdapterVersion
from propulsion.errors import AdapterCorruptError, BaseMismatchError
from serving.observability.metrics import OTHER, ServeMetrics
from serving.registry.loader import AdapterLoader


@dataclass
class Engine:
    """Records the calls that reach the engine; refuses adapters named `misfit`."""

    calls: list[tuple[str, object]]

    async def collective_rpc(self, method: str, args: tuple) -> list:
        name = args[0]
        self.calls.append(("load", name))
        await asyncio.sleep(0)
        if name.startswith("misfit"):
            return [None, ["BaseMismatchError", "does not fit"]]
        return [None, None]

    async def remove_lora(self, adapter_id: int) -> bool:
        self.calls.append(("remove", adapter_id))
        return True


def accept(version: AdapterVersion) -> None:
    pass


def make_loader(
    capacity: int, check: Callable[[AdapterVersion], None] = accept
) -> tuple[AdapterLoader, Engine, CollectorRegistry]:
    registry = CollectorRegistry()
    engine = Engine([])
    return AdapterLoader(engine, check, capacity, ServeMetrics(8, registry)), engine, registry


def version(name: str, number: int = 1) -> AdapterVersion:
    return AdapterVersion(name, f"v{number}", Path("/store") / name / f"v{number}")


def test_concurrent_first_uses_load_an_adapter_once():
    async def scenario():
        loader, engine, registry = make_loader(4)
        await asyncio.gather(*(loader.acquire(version("a")) for _ in range(20)))
        assert engine.calls == [("load", "a@v1")]
        assert registry.get_sample_value("propulsion_serve_adapter_loads_total") == 1
        assert registry.get_sample_value("propulsion_serve_adapters_loaded") == 1

    asyncio.run(scenario())


def test_versions_of_one_name_are_different_adapters_to_the_engine():
    async def scenario():
        loader, _, _ = make_loader(4)
        await loader.acquire(version("a", 1))
        await loader.acquire(version("a", 2))
        first, second = loader.resident["a@v1"], loader.resident["a@v2"]
        assert first.lora_int_id != second.lora_int_id
        assert (first.lora_name, second.lora_name) == ("a@v1", "a@v2")

    asyncio.run(scenario())


def test_an_adapter_in_use_is_never_dropped_and_an_idle_one_is():
    async def scenario():
        loader, engine, _ = make_loader(2)
        await loader.acquire(version("busy"))
        await loader.acquire(version("idle"))
        loader.release(version("idle"))
        idle_id = loader.resident["idle@v1"].lora_int_id
        await loader.acquire(version("c"))
        assert set(loader.resident) == {"busy@v1", "c@v1"}
        assert ("remove", idle_id) in engine.calls
        await loader.acquire(version("d"))
        assert set(loader.resident) == {"busy@v1", "c@v1", "d@v1"}

    asyncio.run(scenario())


def test_the_least_recently_used_idle_adapter_is_dropped_first():
    async def scenario():
        loader, _, _ = make_loader(2)
        for name in ("a", "b", "a"):
            await loader.acquire(version(name))
            loader.release(version(name))
        await loader.acquire(version("c"))
        assert set(loader.resident) == {"a@v1", "c@v1"}

    asyncio.run(scenario())


def test_a_bad_adapter_fails_all_who_wait_for_it_and_is_tried_again_later():
    checks = []

    def damaged_once(found: AdapterVersion) -> None:
        checks.append(found.reference)
        if len(checks) == 1:
            raise AdapterCorruptError("damaged")

    async def scenario():
        loader, engine, registry = make_loader(4, damaged_once)
        results = await asyncio.gather(
            *(loader.acquire(version("a")) for _ in range(3)), return_exceptions=True
        )
        assert [type(result) for result in results] == [AdapterCorruptError] * 3
        assert engine.calls == []
        failures = registry.get_sample_value(
            "propulsion_serve_load_failures_total", {"reason": "corrupt"}
        )
        assert failures == 1
        await loader.acquire(version("a"))
        assert engine.calls == [("load", "a@v1")]

    asyncio.run(scenario())


def test_an_adapter_that_one_rank_refuses_is_taken_off_the_others():
    async def scenario():
        loader, engine, _ = make_loader(4)
        with pytest.raises(BaseMismatchError, match="does not fit"):
            await loader.acquire(version("misfit"))
        assert [call for call, _ in engine.calls] == ["load", "remove"]
        assert not loader.resident

    asyncio.run(scenario())


def test_a_client_that_leaves_does_not_stop_the_load_that_others_wait_for():
    async def scenario():
        loader, engine, _ = make_loader(4)
        first = asyncio.create_task(loader.acquire(version("a")))
        second = asyncio.create_task(loader.acquire(version("a")))
        await asyncio.sleep(0)
        first.cancel()
        await second
        assert "a@v1" in loader.resident
        assert engine.calls == [("load", "a@v1")]

    asyncio.run(scenario())


def test_only_the_first_adapters_get_metrics_series_of_their_own():
    metrics = ServeMetrics(2, CollectorRegistry())
    labels = [metrics.adapter_label(name) for name in ("a", "b", "c", "a")]
    assert labels == ["a", "b", OTHER, "a"]
