"""Aliases and splits: moved without a request that fails, waits, or gets what it should not."""

import asyncio

import pytest

from propulsion.errors import AdapterCorruptError, StoreUnavailableError
from serving.security.principal import Principal
from tests.serving.registry.stores import publish

MOVE = ("PUT", "/adapters/a/aliases/prod")
SPLIT = ("PUT", "/adapters/a/splits/prod")


@pytest.fixture
def store(store):
    publish(store, "a", 3)
    store.set_alias("a", "prod", "v1")
    return store


def test_a_moved_alias_counts_from_the_next_request_on_and_rolls_back(bench):
    async def scenario():
        for version in ("v2", "v1", "v3"):
            answer = await bench.ok(*MOVE, json={"version": version})
            assert answer == {"aliases": {"latest": "v3", "prod": version}, "splits": {}}
            resident = await bench.acquire("a@prod")
            assert resident.servable.reference == f"a@{version}"
            bench.loader.release(resident)

    asyncio.run(scenario())


def test_a_new_version_is_loaded_before_the_alias_moves_if_the_old_one_is(store, bench):
    async def scenario():
        running = await bench.acquire("a@prod")
        moves = []
        set_alias = store.set_alias
        store.set_alias = lambda *args: (moves.append(bench.engine.loads()), set_alias(*args))
        await bench.ok(*MOVE, json={"version": "v2"})
        assert moves == [["a@v1", "a@v2"]]
        assert "a@v1" in bench.loader.residents, "its request still runs"
        assert bench.loader.residents["a@v2"].users == 0
        bench.loader.release(running)

    asyncio.run(scenario())


def test_a_new_version_is_not_loaded_if_nobody_used_the_old_one(bench):
    async def scenario():
        await bench.ok(*MOVE, json={"version": "v2"})
        assert bench.engine.calls == []

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("error", "status"),
    [(AdapterCorruptError("damaged"), 422), (StoreUnavailableError("away"), 503)],
)
def test_an_alias_stays_when_the_new_version_does_not_load(store, bench, error, status):
    async def scenario():
        bench.loader.release(await bench.acquire("a@prod"))
        bench.errors["a@v2"] = error
        assert await bench.refused(status, *MOVE, json={"version": "v2"}) == str(error)
        assert store.aliases("a")["prod"] == "v1"
        assert (await bench.acquire("a@prod")).servable.reference == "a@v1"

    asyncio.run(scenario())


def test_requests_during_moves_get_one_of_the_versions_and_afterwards_the_last(bench):
    async def scenario():
        seen = set()

        async def ask() -> None:
            for _ in range(60):
                resident = await bench.acquire("a@prod")
                seen.add(resident.servable.reference)
                await asyncio.sleep(0)
                bench.loader.release(resident)

        async def move() -> None:
            for version in ("v2", "v3", "v1", "v2"):
                await bench.ok(*MOVE, json={"version": version})
                resident = await bench.acquire("a@prod")
                assert resident.servable.reference == f"a@{version}"
                bench.loader.release(resident)

        await asyncio.gather(move(), *(ask() for _ in range(8)))
        assert seen <= {"a@v1", "a@v2", "a@v3"}
        assert all(not resident.users for resident in bench.loader.residents.values())

    asyncio.run(scenario())


def test_concurrent_moves_of_one_alias_end_in_one_of_them_for_store_and_requests(store, bench):
    async def scenario():
        await asyncio.gather(*(bench.ok(*MOVE, json={"version": f"v{i}"}) for i in (1, 2, 3)))
        resident = await bench.acquire("a@prod")
        assert resident.servable.parts[0][0].version == store.aliases("a")["prod"]

    asyncio.run(scenario())


def test_a_split_counts_from_the_next_request_on_until_it_ends(bench):
    async def scenario():
        bench.loader.release(await bench.acquire("a@prod"))
        answer = await bench.ok(*SPLIT, json={"weights": {"v1": 1, "v2": 3}})
        assert answer["splits"] == {"prod": {"v1": 0.25, "v2": 0.75}}
        assert bench.engine.loads() == ["a@v1", "a@v2"], "both are there for the first request"
        drawn = set()
        for _ in range(40):
            resident = await bench.acquire("a@prod")
            drawn.add(resident.servable.reference)
            bench.loader.release(resident)
        assert drawn == {"a@v1", "a@v2"}
        assert (await bench.ok("DELETE", SPLIT[1]))["splits"] == {}
        assert (await bench.acquire("a@prod")).servable.reference == "a@v1"

    asyncio.run(scenario())


def test_a_moved_alias_ends_its_split(bench):
    async def scenario():
        await bench.ok(*SPLIT, json={"weights": {"v1": 1, "v2": 3}})
        answer = await bench.ok(*MOVE, json={"version": "v3"})
        assert answer == {"aliases": {"latest": "v3", "prod": "v3"}, "splits": {}}

    asyncio.run(scenario())


def test_a_deleted_alias_is_gone_for_the_next_request(bench):
    async def scenario():
        bench.loader.release(await bench.acquire("a@prod"))
        assert (await bench.ok("DELETE", MOVE[1]))["aliases"] == {"latest": "v3"}
        await bench.refused(404, "GET", "/adapters/a@prod")
        await bench.refused(404, "DELETE", MOVE[1])
        await bench.refused(404, "DELETE", SPLIT[1])
        assert await bench.ok("GET", "/adapters/a/aliases") == {
            "aliases": {"latest": "v3"},
            "splits": {},
        }

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("status", "path", "body"),
    [
        (404, "/adapters/nobody/aliases/prod", {"version": "v1"}),
        (404, "/adapters/a/aliases/prod", {"version": "v9"}),
        (404, "/adapters/a/splits/prod", {"weights": {"v1": 1, "v9": 1}}),
        (422, "/adapters/a/aliases/prod", {"version": "latest"}),
        (422, "/adapters/a/aliases/prod", {"version": "../v1"}),
        (422, "/adapters/a/aliases/prod", {}),
        (422, "/adapters/a/aliases/v7", {"version": "v1"}),
        (422, "/adapters/a@v1/aliases/prod", {"version": "v1"}),
        (422, "/adapters/a/splits/prod", {"weights": {}}),
        (422, "/adapters/a/splits/prod", {"weights": {"v1": 0}}),
        (422, "/adapters/a/splits/prod", {"weights": {"v1": -1}}),
        (422, "/adapters/a/splits/prod", {"weights": {"latest": 1}}),
        (422, "/adapters/a/splits/prod", {"weights": {f"v{i}": 1 for i in range(1, 10)}}),
    ],
)
def test_a_wrong_change_changes_nothing(store, bench, status, path, body):
    async def scenario():
        await bench.refused(status, "PUT", path, json=body)
        assert store.aliases("a") == {"latest": "v3", "prod": "v1"}
        assert store.splits("a") == {}

    asyncio.run(scenario())


@pytest.mark.parametrize("weight", ["NaN", "Infinity", "1e999"])
def test_a_weight_that_is_no_number_is_unprocessable(bench, weight):
    async def scenario():
        body = f'{{"weights": {{"v1": {weight}}}}}'
        headers = {"Content-Type": "application/json"}
        await bench.refused(422, *SPLIT, content=body, headers=headers)

    asyncio.run(scenario())


def test_an_admin_of_another_tenant_can_neither_read_nor_change_aliases(store, bench):
    async def scenario():
        bench.principal = Principal("k", "t", "admin", adapters=("mine-*",))
        for method, path, body in (
            ("GET", "/adapters/{}/aliases", None),
            ("PUT", "/adapters/{}/aliases/prod", {"version": "v2"}),
            ("DELETE", "/adapters/{}/aliases/prod", None),
            ("PUT", "/adapters/{}/splits/prod", {"weights": {"v2": 1}}),
            ("DELETE", "/adapters/{}/splits/prod", None),
        ):
            forbidden = await bench.refused(404, method, path.format("a"), json=body)
            missing = await bench.refused(404, method, path.format("nobody"), json=body)
            assert forbidden.replace("`a`", "`nobody`") == missing
        assert store.aliases("a")["prod"] == "v1"

    asyncio.run(scenario())
