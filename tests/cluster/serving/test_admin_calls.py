"""Admin calls for all replicas; stand-ins for the replicas' answers and for the Forwarder."""

import json

import httpx
import pytest

from cluster.serving.admin_calls import AdminCalls
from cluster.serving.messages import WholeAnswer

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Bench:
    def __init__(self, *answers: WholeAnswer, status: int = 200):
        self.answers = answers
        self.status = status
        self.asked: list[str] = []
        self.events: list[str] = []
        self.app = AdminCalls(self._forward, self._ask_all, self._forget, "base")

    async def _ask_all(self, request):
        self.asked.append(request.path)
        return list(self.answers)

    async def _forget(self, name: str) -> None:
        self.events.append(f"forget {name}")

    async def _forward(self, scope, receive, send):
        self.events.append("forwarded")
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": b"one"})

    async def call(self, method: str, path: str) -> httpx.Response:
        transport = httpx.ASGITransport(app=self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            response = await client.request(method, f"/admin/v1{path}", json={})
            self.events.append("answered")
            return response


def status_of(used: int, healthy: bool = True) -> WholeAnswer:
    status = {
        "base": "base",
        "uptime_seconds": float(used),
        "engine": {"healthy": healthy, "restarts": 0},
        "slots": {"total": 8, "used": used, "pinned": 1},
        "host": {"capacity": 16, "used": used, "blends": 0},
    }
    return WholeAnswer(200, ((b"content-length", b"1"),), json.dumps(status).encode())


async def test_the_status_is_the_sum_of_all():
    status = (await Bench(status_of(3), status_of(5, healthy=False)).call("GET", "/status")).json()
    assert status["slots"] == {"total": 16, "used": 8, "pinned": 2}
    assert status["host"]["capacity"] == 32
    assert status["engine"]["healthy"] is False
    assert status["uptime_seconds"] == 5


@pytest.mark.parametrize("action", ["unload", "unpin"])
async def test_what_leaves_an_engine_leaves_all(action):
    bench = Bench(WholeAnswer(200, (), b"{}"), WholeAnswer(200, (), b"{}"))
    assert (await bench.call("POST", f"/adapters/sst2@v1/{action}")).status_code == 200
    assert bench.asked == [f"/admin/v1/adapters/sst2@v1/{action}"]


async def test_one_replicas_refusal_is_the_answer():
    bench = Bench(WholeAnswer(200, (), b"fine"), WholeAnswer(409, (), b"pinned"))
    response = await bench.call("POST", "/adapters/sst2/unload")
    assert (response.status_code, response.text) == (409, "pinned")


async def test_without_replicas_the_caller_is_told():
    assert (await Bench().call("GET", "/status")).status_code == 503


@pytest.mark.parametrize("kind", ["aliases", "splits"])
@pytest.mark.parametrize("method", ["PUT", "DELETE"])
async def test_all_replicas_have_forgotten_an_alias_before_its_change_is_answered(kind, method):
    bench = Bench()
    await bench.call(method, f"/adapters/sst2/{kind}/prod")
    assert bench.events == ["forwarded", "forget sst2", "answered"]


async def test_a_change_that_was_refused_is_no_change():
    bench = Bench(status=409)
    await bench.call("PUT", "/adapters/sst2/aliases/prod")
    assert bench.events == ["forwarded", "answered"]


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/adapters"), ("POST", "/adapters/sst2/load")]
)
async def test_other_calls_go_to_one_replica(method, path):
    bench = Bench()
    assert (await bench.call(method, path)).text == "one"
    assert bench.asked == []
