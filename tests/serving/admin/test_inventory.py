"""What the admin API tells: the server's status, the adapters and their states."""

import asyncio

import pytest

from propulsion.errors import AdapterCorruptError
from serving.admin.schemas import EngineStatus
from serving.security.principal import Principal
from tests.serving.admin.bench import FINGERPRINT
from tests.serving.registry.stores import publish, publish_lora


async def references(bench, **query) -> list[str]:
    page = await bench.ok("GET", "/adapters", params=query)
    return [info["reference"] for info in page["data"]]


def test_status_tells_how_full_the_engine_is(store, bench):
    publish(store, "a")
    publish(store, "b")

    async def scenario():
        await bench.ok("POST", "/adapters/a/load", json={"pin": True})
        await bench.acquire("a:0.5+b")
        status = await bench.ok("GET", "/status")
        assert status.pop("uptime_seconds") >= 0
        assert status == {
            "base": "tiny-base",
            "base_fingerprint": FINGERPRINT,
            "version": "1.2.3",
            "engine": {"healthy": True, "restarts": 0},
            "slots": {"total": 4, "used": 2, "pinned": 1},
            "host": {"capacity": 4, "used": 2, "blends": 1},
            "row_bytes": 4096,
        }

    asyncio.run(scenario())


def test_status_is_told_while_the_engine_is_dead(bench):
    async def scenario():
        bench.engine.error = RuntimeError("dead")
        bench.health = EngineStatus(healthy=False, restarts=1)
        assert (await bench.ok("GET", "/status"))["engine"] == {"healthy": False, "restarts": 1}

    asyncio.run(scenario())


def test_an_adapter_is_listed_with_all_that_is_known_of_it(store, bench):
    publish(store, "a", base_fingerprint=FINGERPRINT)
    publish(store, "a", base_fingerprint=f"sha256:{'1' * 64}")
    publish(store, "b")
    store.set_alias("a", "prod", "v1")
    store.set_split("a", "latest", {"v1": 0.25, "v2": 0.75})

    async def scenario():
        page = await bench.ok("GET", "/adapters")
        first, second, third = page["data"]
        assert page["total"] == 3
        assert first.pop("created")
        assert first.pop("bytes") > 0
        assert first == {
            "reference": "a@v1",
            "name": "a",
            "version": "v1",
            "aliases": ["prod"],
            "splits": {"latest": 0.25},
            "state": "stored",
            "slot": None,
            "pinned": False,
            "active_requests": 0,
            "last_used": None,
            "load_seconds": None,
            "peft_type": "PROPULSION",
            "num_parameters": 24,
            "base_matches": True,
            "error": None,
        }
        assert (second["base_matches"], third["base_matches"]) == (False, None)

    asyncio.run(scenario())


def test_details_add_what_the_manifest_says(store, bench):
    publish(store, "a")
    publish(store, "b", metrics={"accuracy": 0.5}, training_config={"lr": 1e-3}, parent="a")

    async def scenario():
        details = await bench.ok("GET", "/adapters/b@latest")
        assert details["reference"] == "b@v1"
        assert details["metrics"] == {"accuracy": 0.5}
        assert details["training_config"] == {"lr": 1e-3}
        assert details["parent"] == "a@v1"
        assert set(details["files"]) == {"adapter_config.json", "adapter_model.safetensors"}

    asyncio.run(scenario())


def test_states_follow_what_happens_to_an_adapter(store, bench):
    publish(store, "a", 2)
    bench.errors["a@v2"] = AdapterCorruptError("file.bin is damaged")

    async def scenario():
        resident = await bench.acquire("a@v1")
        info = (await bench.ok("GET", "/adapters/a@v1")) | {}
        assert (info["state"], info["slot"], info["active_requests"]) == ("slot", 1, 1)
        assert info["last_used"].endswith("Z")
        bench.loader.release(resident)
        assert "damaged" in await bench.refused(422, "POST", "/adapters/a@v2/load")
        failed = (await bench.ok("GET", "/adapters", params={"state": "failed"}))["data"]
        assert [info["reference"] for info in failed] == ["a@v2"]
        assert failed[0]["error"] == "file.bin is damaged"
        assert await references(bench, state="slot") == ["a@v1"]
        assert await references(bench, state="stored") == []

    asyncio.run(scenario())


def test_the_list_is_searched_and_paged_in_the_store_order(store, bench):
    for name in ("sst2", "boolq", "Sst5"):
        publish(store, name, 2)
    publish_lora(store, "lora")

    async def scenario():
        assert await references(bench, query="SST") == ["Sst5@v1", "Sst5@v2", "sst2@v1", "sst2@v2"]
        assert await references(bench, query="2@v2") == ["sst2@v2"]
        assert await references(bench, limit=3, offset=2) == ["boolq@v1", "boolq@v2", "lora@v1"]
        page = await bench.ok("GET", "/adapters", params={"limit": 1, "offset": 99})
        assert page == {"data": [], "total": 7}

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("sort", "wanted"),
    [
        ("reference", "a b c d"),
        ("-reference", "d c b a"),
        # By their names: failed, slot, stored.
        ("state", "b a c d"),
        ("-state", "d a c b"),
        ("slot", "c a b d"),
        ("-slot", "a c b d"),
        ("active_requests", "b c d a"),
        ("-active_requests", "a b c d"),
        ("last_used", "c a b d"),
        ("-last_used", "a c b d"),
        ("num_parameters", "a c b d"),
        ("-num_parameters", "b a c d"),
        ("created", "a b c d"),
        ("-created", "c b a d"),
        ("bytes", "a c b d"),
        ("-bytes", "b a c d"),
    ],
)
def test_the_list_is_sorted_by_a_field_and_what_lacks_it_comes_last(store, bench, sort, wanted):
    publish(store, "a")
    publish_lora(store, "b")
    publish(store, "c")
    publish(store, "d")
    manifest = store.path / "d" / "v1" / "manifest.json"
    manifest.chmod(0o644)
    manifest.write_text("no JSON")
    bench.errors["b@v1"] = AdapterCorruptError("damaged")

    async def scenario():
        bench.loader.release(await bench.acquire("c"))
        await bench.acquire("a")
        await bench.refused(422, "POST", "/adapters/b/load")
        page = await bench.ok("GET", "/adapters", params={"sort": sort})
        assert "".join(info["name"] for info in page["data"]) == wanted.replace(" ", "")
        rest = await references(bench, sort=sort, limit=3, offset=3)
        assert rest == [page["data"][3]["reference"]]

    asyncio.run(scenario())


@pytest.mark.parametrize("sort", ["", "-", "nonsense", "--bytes", "bytes-", "error", "bytes\n"])
def test_an_unknown_order_is_unprocessable(bench, sort):
    asyncio.run(bench.refused(422, "GET", "/adapters", params={"sort": sort}))


def test_a_damaged_adapter_spoils_no_page(store, bench):
    publish(store, "a")
    publish(store, "b", 2)
    (store.path / "a" / "aliases.json").write_text("no JSON")
    manifest = store.path / "b" / "v1" / "manifest.json"
    manifest.chmod(0o644)
    manifest.write_text("no JSON")

    async def scenario():
        page = await bench.ok("GET", "/adapters")
        errors = [info["error"] for info in page["data"]]
        assert "aliases.json" in errors[0]
        assert "manifest.json" in errors[1]
        assert errors[2] is None
        assert [info["state"] for info in page["data"]] == ["stored", "failed", "stored"]

    asyncio.run(scenario())


def test_an_admin_of_one_tenant_sees_nothing_of_another(store, bench):
    publish(store, "theirs")
    publish(store, "mine-1", parent="theirs")

    async def scenario():
        bench.principal = Principal("k", "t", "admin", adapters=("mine-*",))
        assert await references(bench) == ["mine-1@v1"]
        assert (await bench.ok("GET", "/adapters/mine-1"))["parent"] is None
        for path in ("", "@v1", "@latest"):
            forbidden = await bench.refused(404, "GET", f"/adapters/theirs{path}")
            missing = await bench.refused(404, "GET", f"/adapters/nobody{path}")
            assert forbidden.replace("theirs", "nobody") == missing

    asyncio.run(scenario())


def test_of_thousands_of_adapters_only_the_page_is_read(store, bench):
    publish(store, "a")
    for i in range(2_000):
        (store.path / f"b-{i:05}" / "v1").mkdir(parents=True)

    async def scenario():
        page = await bench.ok("GET", "/adapters", params={"limit": 1})
        assert page["total"] >= 1
        assert page["data"][0]["error"] is None

    asyncio.run(scenario())
