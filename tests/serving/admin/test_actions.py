"""What the admin API does: load, unload, pin, verify."""

import asyncio

import pytest

from propulsion.errors import BaseMismatchError
from serving.security.principal import Principal
from tests.serving.registry.stores import publish

ACTIONS = ("load", "unload", "pin", "unpin", "verify")


def test_an_adapter_is_loaded_pinned_unpinned_and_unloaded(store, bench):
    publish(store, "a")

    async def scenario():
        states = []
        for action in ("load", "pin", "unpin", "unload"):
            info = await bench.ok("POST", f"/adapters/a@latest/{action}")
            assert info["reference"] == "a@v1"
            states.append((info["state"], info["pinned"]))
        assert states == [("slot", False), ("slot", True), ("slot", False), ("stored", False)]

    asyncio.run(scenario())


def test_a_load_may_pin_and_a_pin_loads(store, bench):
    publish(store, "a")
    publish(store, "b")

    async def scenario():
        assert (await bench.ok("POST", "/adapters/a/load", json={"pin": True}))["pinned"]
        assert (await bench.ok("POST", "/adapters/b/pin"))["pinned"]
        assert bench.engine.loads() == ["a@v1", "b@v1"]

    asyncio.run(scenario())


def test_an_adapter_in_use_or_pinned_is_unloaded_only_if_forced(store, bench):
    publish(store, "a")

    async def scenario():
        resident = await bench.acquire("a")
        assert "in use" in await bench.refused(409, "POST", "/adapters/a/unload")
        info = await bench.ok("POST", "/adapters/a/unload", json={"force": True})
        assert info["state"] == "slot"
        bench.loader.release(resident)
        assert (await bench.ok("GET", "/adapters/a"))["state"] == "stored"
        await bench.ok("POST", "/adapters/a/pin")
        assert "pinned" in await bench.refused(409, "POST", "/adapters/a/unload")

    asyncio.run(scenario())


def test_too_many_pins_are_a_conflict(store, bench):
    for name in "abcd":
        publish(store, name)

    async def scenario():
        for name in "abc":
            await bench.ok("POST", f"/adapters/{name}/pin")
        assert "unpin another" in await bench.refused(409, "POST", "/adapters/d/pin")

    asyncio.run(scenario())


def test_an_adapter_that_does_not_fit_is_not_loaded_and_says_why(store, bench):
    publish(store, "misfit")

    async def scenario():
        message = await bench.refused(422, "POST", "/adapters/misfit/load")
        assert message == "does not fit"

    asyncio.run(scenario())


def test_while_the_store_is_away_a_loaded_version_can_be_unloaded_and_others_wait(store, bench):
    publish(store, "a")

    async def scenario():
        await bench.ok("POST", "/adapters/a/load")
        store.is_away = True
        response = await bench.call("POST", "/adapters/a/load")
        assert response.status_code == 503
        assert response.headers["Retry-After"] == "5"
        await bench.ok("POST", "/adapters/a@v1/unload")

    asyncio.run(scenario())


def test_verify_finds_a_changed_byte(store, bench):
    publish(store, "a")

    async def scenario():
        assert await bench.ok("POST", "/adapters/a/verify") == {"ok": True, "error": None}
        file = store.path / "a" / "v1" / "adapter_model.safetensors"
        file.chmod(0o644)
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
        answer = await bench.ok("POST", "/adapters/a/verify")
        assert not answer["ok"]
        assert "adapter_model.safetensors" in answer["error"]

    asyncio.run(scenario())


def test_verify_finds_another_base(store, bench):
    publish(store, "a", base_fingerprint=f"sha256:{'1' * 64}")

    async def scenario():
        answer = await bench.ok("POST", "/adapters/a/verify")
        assert "was trained for the base model" in answer["error"]

    asyncio.run(scenario())


@pytest.mark.parametrize("action", ACTIONS)
def test_unknown_names_are_not_found_and_malformed_ones_are_unprocessable(store, bench, action):
    publish(store, "a")

    async def scenario():
        for reference in ("nobody", "a@v9", "a@prod"):
            await bench.refused(404, "POST", f"/adapters/{reference}/{action}")
        for reference in ("a@", "@", "a@V1", "a:0.5+b", "%2e%2e", "a b", "%00", "é", "x" * 301):
            await bench.refused(422, "POST", f"/adapters/{reference}/{action}")

    asyncio.run(scenario())


@pytest.mark.parametrize("action", ACTIONS)
def test_an_admin_cannot_act_on_another_tenants_adapter(store, bench, action):
    publish(store, "theirs")

    async def scenario():
        await bench.acquire("theirs")
        bench.principal = Principal("k", "t", "admin", adapters=("mine-*",))
        forbidden = await bench.refused(404, "POST", f"/adapters/theirs@v1/{action}")
        missing = await bench.refused(404, "POST", f"/adapters/nobody@v1/{action}")
        assert forbidden.replace("theirs", "nobody") == missing

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "body", [{"pin": "perhaps"}, {"surplus": 1}, [], "text", None, {"pin": None}]
)
def test_a_malformed_body_is_unprocessable(store, bench, body):
    publish(store, "a")

    async def scenario():
        if body is None:
            await bench.refused(422, "POST", "/adapters/a/load", content=b"{")
        else:
            await bench.refused(422, "POST", "/adapters/a/load", json=body)

    asyncio.run(scenario())


def test_every_route_is_closed_to_an_inference_key(store, bench):
    publish(store, "a")
    methods = {"get", "put", "post", "delete"}

    async def scenario():
        bench.principal = Principal("k", "t", "inference")
        routes = bench.app.openapi()["paths"]
        calls = [(m, path) for path, ops in routes.items() for m in ops.keys() & methods]
        assert len(calls) == 13
        for method, path in calls:
            url = path.removeprefix("/admin/v1").format(reference="a", name="a", alias="prod")
            body = {"version": "v1", "weights": {"v1": 1}} if method == "put" else None
            response = await bench.call(method, url, json=body)
            assert response.status_code in (403, 422)
            if method != "put":
                assert response.status_code == 403
        assert not bench.engine.calls
        assert store.num_reads == 0

    asyncio.run(scenario())


def test_a_load_refused_by_the_check_is_told(store, bench):
    publish(store, "a")
    bench.errors["a@v1"] = BaseMismatchError("made for another base")

    async def scenario():
        message = await bench.refused(422, "POST", "/adapters/a/pin")
        assert message == "made for another base"

    asyncio.run(scenario())
