"""StoreModels behind a small app that asks it as vLLM's handlers do."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import SimpleNamespace

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry

from adapters import AdapterVersion
from propulsion.errors import (
    AdapterCorruptError,
    BaseMismatchError,
    ConfigError,
    HeadNotServedError,
)
from serving.observability.metrics import ServeMetrics
from serving.observability.tracking import RequestTracking
from serving.registry.listing import StoreListing
from serving.registry.loader import AdapterLoader
from serving.registry.models import ModelRefusedError, StoreModels, answer_refused
from serving.registry.resolution import Resolver
from serving.security.principal import Principal, current_principal
from tests.serving.registry.engine_stand_in import EngineClientStandIn
from tests.serving.registry.stores import publish

BASE = "tiny-base"
ANN = Principal("ann-1", "ann", "inference", adapters=("ann-*", "shared"))
BOB = Principal("bob-1", "bob", "inference", adapters=("bob-*",), may_use_base=False)


class Bench:
    """The app with its parts; `principal` is who asks."""

    def __init__(self, store, **options):
        self.principal: Principal | None = None
        self.errors: dict[str, Exception] = {}
        self.registry = CollectorRegistry()
        self.engine = EngineClientStandIn()
        metrics = ServeMetrics(8, self.registry)
        self.loader = AdapterLoader(self.engine, self.prepare, 8, metrics)
        self.resolver = Resolver(store, self.loader.residents)
        self.models = StoreModels(
            resolver=self.resolver,
            listing=StoreListing(store),
            loader=self.loader,
            metrics=metrics,
            engine_client=self.engine,
            base_model_paths=[SimpleNamespace(name=BASE, model_path="/secret/tiny-base")],
            **options,
        )
        app = FastAPI()
        app.post("/v1/completions")(self.complete)
        app.post("/v1/embeddings")(self.embed)
        app.get("/v1/models")(self.list_models)
        app.add_exception_handler(ModelRefusedError, answer_refused)
        self.app = RequestTracking(app, metrics)

    @contextmanager
    def prepare(self, version: AdapterVersion) -> Iterator[AdapterVersion]:
        if version.name in self.errors:
            raise self.errors[version.name]
        yield version

    async def complete(self, body: dict) -> JSONResponse:
        request = self.begin(body)
        refused = await self.models.check(request)
        if refused is not None:
            return JSONResponse(refused.model_dump(), refused.error.code)
        return self.answer(request)

    async def embed(self, body: dict) -> JSONResponse:
        request = self.begin(body)
        await self.models.require(request)
        return self.answer(request)

    async def list_models(self) -> JSONResponse:
        self.begin({})
        return JSONResponse((await self.models.show_available_models()).model_dump())

    def begin(self, body: dict) -> SimpleNamespace:
        if self.principal:
            current_principal.set(self.principal)
        return SimpleNamespace(**{"model": None, **body})

    def answer(self, request: SimpleNamespace) -> JSONResponse:
        users = {name: resident.users for name, resident in self.loader.residents.items()}
        lora = self.models.lora_requests.get(request.model)
        seen = sorted(self.models.lora_requests)
        return JSONResponse(
            {"model": self.models.model_name(lora), "users": users, "lora_requests": seen}
        )

    @asynccontextmanager
    async def client(self) -> AsyncIterator[httpx.AsyncClient]:
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            yield client

    async def ask(self, model: str | None, path: str = "/v1/completions", **body) -> httpx.Response:
        async with self.client() as client:
            return await client.post(path, json={"model": model, **body})

    async def listed(self) -> list[dict]:
        async with self.client() as client:
            return (await client.get("/v1/models")).json()["data"]


@pytest.fixture
def bench(store) -> Bench:
    for name in ("ann-1", "ann-2", "bob-1", "shared"):
        publish(store, name)
    return Bench(store)


def test_an_adapter_answers_under_its_version_and_is_released_at_the_end(bench):
    async def scenario():
        response = await bench.ask("shared@latest")
        assert response.headers["X-Adapter-Version"] == "shared@v1"
        assert response.json() == {
            "model": "shared@v1",
            "users": {"shared@v1": 1},
            "lora_requests": ["shared@v1"],
        }
        assert bench.loader.residents["shared@v1"].users == 0

    asyncio.run(scenario())


@pytest.mark.parametrize("model", [None, "", BASE])
def test_the_base_answers_for_its_name_and_for_none(bench, model):
    async def scenario():
        response = await bench.ask(model)
        assert response.json() == {"model": BASE, "users": {}, "lora_requests": []}
        assert "X-Adapter-Version" not in response.headers

    asyncio.run(scenario())


def test_a_blend_answers_under_its_canonical_text(bench):
    async def scenario():
        response = await bench.ask("shared:0.3+ann-1@latest:0.70")
        assert response.json()["model"] == "ann-1@v1:0.7+shared@v1:0.3"
        assert response.headers["X-Adapter-Version"] == "ann-1@v1:0.7+shared@v1:0.3"
        value = bench.registry.get_sample_value(
            "propulsion_serve_requests_total", {"adapter": "blend", "outcome": "ok"}
        )
        assert value == 1

    asyncio.run(scenario())


def test_a_split_answers_under_the_drawn_version_which_a_user_keeps(bench, store):
    publish(store, "shared")
    store.set_split("shared", "latest", {"v1": 0.5, "v2": 0.5})

    async def scenario():
        drawn = set()
        for i in range(30):
            answers = [await bench.ask("shared", user=f"user-{i}") for _ in range(2)]
            versions = {answer.headers["X-Adapter-Version"] for answer in answers}
            assert len(versions) == 1
            drawn |= versions
        assert drawn == {"shared@v1", "shared@v2"}
        by_seed = {(await bench.ask("shared", seed=5)).json()["model"] for _ in range(5)}
        assert len(by_seed) == 1
        counted = [
            bench.registry.get_sample_value(
                "propulsion_serve_split_draws_total", {"adapter": "shared", "version": version}
            )
            for version in ("v1", "v2")
        ]
        assert sum(counted) == 65

    asyncio.run(scenario())


def test_a_base_without_a_head_is_no_classifier_and_its_adapters_are(store):
    publish(store, "shared")
    bench = Bench(store, base_answers=False)

    async def scenario():
        for model in (None, BASE):
            refused = await bench.ask(model, "/v1/embeddings")
            assert refused.status_code == 400
            assert "has no classification head" in refused.json()["error"]["message"]
        assert (await bench.ask("shared", "/v1/embeddings")).json()["model"] == "shared@v1"

    asyncio.run(scenario())


def test_a_head_that_the_engine_does_not_run_is_refused_with_what_to_do(bench):
    bench.errors["shared"] = HeadNotServedError("its head is large: start a larger server")

    async def scenario():
        refused = await bench.ask("shared")
        assert refused.status_code == 400
        assert (
            "`shared` cannot be served here: its head is large: start a larger server"
            in (refused.json()["error"]["message"])
        )

    asyncio.run(scenario())


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/embeddings"])
def test_another_tenants_adapter_is_answered_as_one_that_does_not_exist(bench, path):
    async def scenario():
        # It is loaded, which must not show either.
        await bench.ask("bob-1")
        for principal in (ANN, BOB):
            bench.principal = principal
            theirs, unknown = ("bob-1", "bob-9") if principal is ANN else ("ann-1", "ann-9")
            for shape in ("{}", "{}@v1", "{}@latest", "{}:0.5", "{0}:0.5+{0}:0.25"):
                forbidden = await bench.ask(shape.format(theirs), path)
                missing = await bench.ask(shape.format(unknown), path)
                assert forbidden.status_code == missing.status_code == 404
                assert forbidden.text.replace(theirs, unknown) == missing.text
                headers = [
                    {k: v for k, v in answer.headers.items() if k != "x-request-id"}
                    for answer in (forbidden, missing)
                ]
                assert headers[0] == headers[1]

    asyncio.run(scenario())


def test_a_blend_with_another_tenants_adapter_is_not_found_and_loads_nothing(bench):
    async def scenario():
        bench.principal = ANN
        forbidden = await bench.ask("ann-1:0.5+bob-1:0.5")
        missing = await bench.ask("ann-1:0.5+bob-9:0.5")
        assert forbidden.status_code == 404
        assert forbidden.text.replace("bob-1", "bob-9") == missing.text
        assert bench.engine.calls == []

    asyncio.run(scenario())


def test_the_store_is_not_asked_about_another_tenants_adapter(bench, store):
    async def scenario():
        bench.principal = ANN
        await bench.ask("bob-1")
        assert store.num_reads == 0

    asyncio.run(scenario())


@pytest.mark.parametrize("model", [None, BASE])
def test_the_base_does_not_exist_for_who_may_not_use_it(bench, model):
    async def scenario():
        bench.principal = BOB
        refused, unknown = await bench.ask(model), await bench.ask("bob-9")
        assert refused.status_code == 404
        assert refused.text == unknown.text.replace("bob-9", model or "")
        assert BASE not in unknown.text
        assert (await bench.ask("bob-1")).status_code == 200

    asyncio.run(scenario())


def test_each_tenant_lists_its_own(bench):
    async def scenario():
        everything = await bench.listed()
        ids = ["ann-1@v1", "ann-2@v1", "bob-1@v1", "shared@v1"]
        assert [card["id"] for card in everything] == [BASE, *ids]
        assert {card["root"] for card in everything} == {BASE}
        assert {card["parent"] for card in everything[1:]} == {BASE}
        bench.principal = ANN
        ids = [card["id"] for card in await bench.listed()]
        assert ids == [BASE, "ann-1@v1", "ann-2@v1", "shared@v1"]
        bench.principal = BOB
        (card,) = await bench.listed()
        assert (card["id"], card["root"], card["parent"]) == ("bob-1@v1", "bob-1@v1", None)

    asyncio.run(scenario())


def test_while_the_store_is_away_the_loaded_adapters_are_listed(bench, store):
    async def scenario():
        await bench.ask("shared")
        await bench.ask("shared:0.5")
        store.is_away = True
        assert [card["id"] for card in await bench.listed()] == [BASE, "shared@v1"]

    asyncio.run(scenario())


def test_a_malformed_blend_is_the_clients_error_and_says_what_is_wrong(bench):
    async def scenario():
        response = await bench.ask("ann-1:much")
        assert response.status_code == 400
        error = response.json()["error"]
        assert "'much'" in error["message"]
        assert (error["type"], error["param"], error["code"]) == ("BadRequestError", "model", 400)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (AdapterCorruptError("/secret/path is damaged"), 500),
        (BaseMismatchError("/secret/path is of another base"), 400),
        (ConfigError("/secret/path is odd"), 400),
    ],
)
@pytest.mark.parametrize("path", ["/v1/completions", "/v1/embeddings"])
def test_an_adapter_that_cannot_be_loaded_says_so_and_no_path(bench, error, status, path):
    async def scenario():
        bench.errors["shared"] = error
        response = await bench.ask("shared", path)
        assert response.status_code == response.json()["error"]["code"] == status
        assert "`shared`" in response.text
        assert "secret" not in response.text

    asyncio.run(scenario())


def test_while_the_store_is_away_a_loaded_adapter_is_served_and_others_are_to_be_retried(
    bench, store
):
    async def scenario():
        await bench.ask("shared")
        store.is_away = True
        bench.resolver.ttl_seconds = 0.0
        assert (await bench.ask("shared")).json()["model"] == "shared@v1"
        response = await bench.ask("ann-1")
        assert response.status_code == 503
        assert response.headers["Retry-After"] == "5"

    asyncio.run(scenario())


def test_a_request_sees_no_loaded_adapter_but_its_own(bench):
    async def scenario():
        await bench.ask("shared")
        assert (await bench.ask("ann-1")).json()["lora_requests"] == ["ann-1@v1"]
        assert (await bench.ask(BASE)).json()["lora_requests"] == []

    asyncio.run(scenario())
