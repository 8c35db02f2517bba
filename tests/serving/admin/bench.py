"""The admin API in an app of its own, over a real store and the engine's stand-in."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from adapters import AdapterVersion
from serving.admin.router import Server, build_router
from serving.admin.schemas import EngineStatus
from serving.observability.metrics import ServeMetrics
from serving.registry.listing import StoreListing
from serving.registry.loader import AdapterLoader
from serving.registry.references import parse_model
from serving.registry.residents import Resident
from serving.registry.resolution import Resolver
from serving.security.principal import LOCAL, Principal, current_principal
from tests.serving.registry.engine_stand_in import EngineClientStandIn

FINGERPRINT = f"sha256:{'0' * 64}"


class Bench:
    """The API with its parts; `principal` is who asks. Listings are always fresh."""

    def __init__(self, store):
        self.principal: Principal = LOCAL
        self.errors: dict[str, Exception] = {}
        self.engine = EngineClientStandIn()
        self.health = EngineStatus(healthy=True)
        metrics = ServeMetrics(8, CollectorRegistry())
        self.loader = AdapterLoader(self.engine, self.prepare, 4, metrics)
        self.resolver = Resolver(store, self.loader.residents)
        server = Server("tiny-base", FINGERPRINT, "1.2.3", lambda: self.health, time.monotonic())
        self.app = FastAPI()
        self.app.include_router(
            build_router(store, StoreListing(store, 0.0), self.loader, self.resolver, server)
        )

    @contextmanager
    def prepare(self, version: AdapterVersion) -> Iterator[AdapterVersion]:
        if version.reference in self.errors:
            raise self.errors[version.reference]
        yield version

    async def call(self, method: str, path: str, **options: Any) -> httpx.Response:
        current_principal.set(self.principal)
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            return await client.request(method, f"/admin/v1{path}", **options)

    async def ok(self, method: str, path: str, **options: Any) -> Any:
        """The JSON of an answer that must be a success."""
        response = await self.call(method, path, **options)
        assert response.status_code == 200, response.text
        return response.json()

    async def refused(self, status: int, method: str, path: str, **options: Any) -> str:
        """The message of an answer that must be this error, in OpenAI's format."""
        response = await self.call(method, path, **options)
        assert response.status_code == status, response.text
        error = response.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["code"] == status
        return error["message"]

    async def acquire(self, model: str) -> Resident:
        """What a request for `model` holds until its end."""
        resolution = await self.resolver.resolve(parse_model(model))
        return await self.loader.acquire(resolution.servable)
