"""The API that the console speaks to, over a real store and with states that are made up."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from threading import Thread
from typing import Any

import uvicorn
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from adapters import AdapterStore, AdapterVersion
from propulsion.errors import AdapterNotFoundError
from serving.admin import schemas
from serving.console.routes import console_routes
from tests.serving.console.catalogue import FINGERPRINT, PEFT_TYPES, STATES
from tests.serving.console.traffic import Traffic
from tests.serving.live_server import free_port

BASE = "llama-3.1-8b"
ADMIN_KEY = "admin-key-of-a-test"
INFERENCE_KEY = "inference-key-of-a-test"


class ConsoleBackendStandIn:
    """Answers as the real server is to; `requests` and `streams` tell what it was asked.

    Attributes:
        keys: role by key; with none, everyone is an admin.
        failures: status by part of a path, for requests that are to fail.
        extra: AdapterInfo of adapters that are in no store.
        answers: what a model says, by its name.
        hold: answers stop after their first word until it is set.
    """

    def __init__(self, store: AdapterStore) -> None:
        self.store = store
        self.url = f"http://127.0.0.1:{free_port()}"
        self.keys: dict[str, str] = {}
        self.failures: dict[str, int] = {}
        self.extra: list[dict[str, Any]] = []
        self.states = {reference: dict(state) for reference, state in STATES.items()}
        self.details: dict[str, dict[str, Any]] = {}
        self.answers: dict[str, str] = {}
        self.word_seconds = 0.0
        self.hold = False
        self.traffic = Traffic()
        self.requests: list[tuple[str, str, Any]] = []
        self.streams: dict[str, str] = {}

    def app(self) -> Starlette:
        adapter = "/admin/v1/adapters/{reference}"
        alias = f"{adapter}/aliases/{{alias}}"
        split = f"{adapter}/splits/{{alias}}"
        routes = [
            self._route("/admin/v1/status", self._status),
            self._route("/admin/v1/adapters", self._list),
            self._route(adapter, self._adapter),
            self._route(f"{adapter}/aliases", self._aliases),
            self._route(alias, self._set_alias, "PUT"),
            self._route(alias, self._delete_alias, "DELETE"),
            self._route(split, self._set_split, "PUT"),
            self._route(split, self._delete_split, "DELETE"),
            self._route(f"{adapter}/{{action}}", self._act, "POST"),
            self._route("/v1/models", self._models),
            self._route("/v1/completions", self._generate, "POST"),
            self._route("/v1/chat/completions", self._generate, "POST"),
            self._route("/metrics", self._metrics),
        ]
        return Starlette(routes=[*routes, *console_routes()])

    @contextmanager
    def running(self) -> Any:
        """Serve in a thread, on loopback."""
        config = uvicorn.Config(
            self.app(), port=int(self.url.rpartition(":")[2]), log_level="error", lifespan="off"
        )
        server = uvicorn.Server(config)
        thread = Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            thread.join(0.01)
        try:
            yield self
        finally:
            self.hold = False
            server.should_exit = server.force_exit = True
            thread.join(10)

    def asked(self, method: str, path: str) -> list[Any]:
        """The bodies of the requests so far to a path."""
        return [body for m, p, body in self.requests if (m, p) == (method, path)]

    def _route(self, path: str, answer: Callable[..., Any], method: str = "GET") -> Route:
        async def endpoint(request: Request) -> Response:
            text = await request.body()
            body = json.loads(text) if text else None
            self.requests.append((method, request.url.path, body))
            for part, status in self.failures.items():
                if part in request.url.path:
                    return _error(status, f"made to fail: {part}")
            refusal = self._refusal(request)
            if refusal is not None:
                return refusal
            try:
                result = answer(request, body)
            except AdapterNotFoundError as error:
                return _error(404, str(error))
            if isinstance(result, Response):
                return result
            if isinstance(result, BaseModel):
                result = result.model_dump(mode="json")
            return JSONResponse(result)

        return Route(path, endpoint, methods=[method])

    def _refusal(self, request: Request) -> Response | None:
        if not self.keys or request.url.path == "/metrics":
            return None
        role = self.keys.get(request.headers.get("authorization", "").removeprefix("Bearer "))
        if role is None:
            return _error(401, "Missing or wrong API key: send `Authorization: Bearer <key>`.")
        if role != "admin" and request.url.path.startswith("/admin"):
            return _error(403, "This route needs an admin key.")
        return None

    def _status(self, request: Request, body: Any) -> schemas.Status:
        return schemas.Status.model_validate(
            {
                "base": BASE,
                "base_fingerprint": FINGERPRINT,
                "version": "0.5.0",
                "uptime_seconds": 273_600.0,
                "engine": {"healthy": True, "restarts": 0},
                "slots": {"total": 2000, "used": 1243, "pinned": 37},
                "host": {"capacity": 8000, "used": 5210, "blends": 0},
                "row_bytes": 561_152,
            }
        )

    def _infos(self) -> list[dict[str, Any]]:
        return [*(self._info(version) for version in self.store.list()), *self.extra]

    def _info(self, version: AdapterVersion) -> dict[str, Any]:
        manifest = version.manifest
        canned = self.states.get(version.reference, {})
        used = canned.get("last_used")
        size = 10_752 + 512 * (len(version.name) % 5)
        return {
            "reference": version.reference,
            "name": version.name,
            "version": version.version,
            "aliases": [
                alias
                for alias, target in self.store.aliases(version.name).items()
                if target == version.version
            ],
            "splits": {
                alias: weights[version.version]
                for alias, weights in self.store.splits(version.name).items()
                if version.version in weights
            },
            "state": "stored",
            "slot": None,
            "pinned": False,
            "active_requests": 0,
            "peft_type": PEFT_TYPES.get(version.name, "PROPULSION"),
            "num_parameters": size,
            "bytes": 4 * size + 1_800,
            "created": manifest.created.isoformat(),
            "base_matches": True,
            "error": None,
            **canned,
            "last_used": None
            if used is None
            else (datetime.now(UTC) - timedelta(seconds=float(used) + 1)).isoformat(),
        }

    def _list(self, request: Request, body: Any) -> schemas.AdapterPage:
        asked = request.query_params
        infos = [
            info
            for info in self._infos()
            if asked.get("query", "") in info["reference"]
            and asked.get("state", info["state"]) == info["state"]
        ]
        sort = asked.get("sort", "reference")
        key = sort.removeprefix("-")
        known = [info for info in infos if info[key] is not None]
        rest = [info for info in infos if info[key] is None]
        infos = sorted(known, key=lambda i: i[key], reverse=sort.startswith("-")) + rest
        offset, limit = int(asked.get("offset", 0)), int(asked.get("limit", 100))
        return schemas.AdapterPage(data=infos[offset : offset + limit], total=len(infos))

    def _adapter(self, request: Request, body: Any) -> schemas.AdapterDetails:
        version = self.store.resolve(request.path_params["reference"])
        manifest = version.manifest
        details = {
            **self._info(version),
            "metrics": manifest.metrics,
            "training_config": manifest.training_config,
            "parent": manifest.parent,
            "files": {name: entry.model_dump() for name, entry in manifest.files.items()},
            **self.details.get(version.reference, {}),
        }
        return schemas.AdapterDetails.model_validate(details)

    def _act(self, request: Request, body: Any) -> schemas.AdapterInfo | Response:
        version = self.store.resolve(request.path_params["reference"])
        action = request.path_params["action"]
        state = self.states.setdefault(version.reference, {})
        if action == "unload":
            force = schemas.UnloadBody.model_validate(body).force
            if state.get("active_requests") and not force:
                return _error(409, f"{version.reference} runs {state['active_requests']} requests.")
        if action == "load":
            schemas.LoadBody.model_validate(body)
            state.update(state="slot", slot=99, error=None)
        elif action == "unload":
            state.update(state="stored", slot=None, active_requests=0)
        else:
            state.update(pinned=action == "pin")
        return schemas.AdapterInfo.model_validate(self._info(version))

    def _aliases(self, request: Request, body: Any) -> schemas.Aliases:
        name = request.path_params["reference"]
        return schemas.Aliases(aliases=self.store.aliases(name), splits=self.store.splits(name))

    def _set_alias(self, request: Request, body: Any) -> schemas.Aliases:
        self.store.set_alias(*_alias(request), schemas.AliasBody.model_validate(body).version)
        return self._aliases(request, body)

    def _delete_alias(self, request: Request, body: Any) -> schemas.Aliases:
        self.store.delete_alias(*_alias(request))
        return self._aliases(request, body)

    def _set_split(self, request: Request, body: Any) -> schemas.Aliases:
        self.store.set_split(*_alias(request), schemas.SplitBody.model_validate(body).weights)
        return self._aliases(request, body)

    def _delete_split(self, request: Request, body: Any) -> schemas.Aliases:
        self.store.delete_split(*_alias(request))
        return self._aliases(request, body)

    def _models(self, request: Request, body: Any) -> dict[str, Any]:
        base = {"id": BASE, "root": BASE, "parent": None}
        cards = [{"id": info["reference"], "root": BASE, "parent": BASE} for info in self._infos()]
        return {"object": "list", "data": [base, *cards]}

    def _metrics(self, request: Request, body: Any) -> Response:
        self.traffic.advance(2)
        return PlainTextResponse(self.traffic.exposition())

    def _generate(self, request: Request, body: Any) -> Response:
        model = body["model"]
        reference = None
        if model != BASE:
            parts = [part.partition(":") for part in model.split("+")]
            found = [(self.store.resolve(name).reference, weight) for name, _, weight in parts]
            reference = "+".join(f"{name}:{w}" if w else name for name, w in found)
        headers = {"X-Adapter-Version": reference} if reference else {}
        text = self.answers.get(model, f"An answer of {model} to: {_prompt(body)}")
        events = self._events(model, text, is_chat="messages" in body)
        return StreamingResponse(events, media_type="text/event-stream", headers=headers)

    async def _events(self, model: str, text: str, *, is_chat: bool) -> AsyncIterator[str]:
        self.streams[model] = "open"
        try:
            words = text.split(" ")
            for number, word in enumerate(words, 1):
                piece = word if number == 1 else f" {word}"
                choice = {"delta": {"content": piece}} if is_chat else {"text": piece}
                choice["finish_reason"] = "stop" if number == len(words) else None
                usage = {"completion_tokens": number}
                yield f"data: {json.dumps({'choices': [choice], 'usage': usage})}\n\n"
                await asyncio.sleep(self.word_seconds)
                while self.hold:
                    await asyncio.sleep(0.01)
            yield "data: [DONE]\n\n"
            self.streams[model] = "complete"
        finally:
            if self.streams[model] == "open":
                self.streams[model] = "aborted"


def _alias(request: Request) -> tuple[str, str]:
    return request.path_params["reference"], request.path_params["alias"]


def _prompt(body: Any) -> str:
    return body["messages"][0]["content"] if "messages" in body else body["prompt"]


def _error(status: int, message: str) -> Response:
    error = {"message": message, "type": "Error", "param": None, "code": status}
    return JSONResponse({"error": error}, status_code=status)
