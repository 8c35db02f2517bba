"""The gateway's forwarding behind real guards; stand-ins for replicas, which break on cue."""

import json
from collections.abc import Callable

import httpx
import pytest
from prometheus_client import CollectorRegistry
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError

from cluster.serving.config import ClusterServeConfig
from cluster.serving.forwarding import Forwarder
from cluster.serving.messages import AnswerHead, AnswerPart, ForwardedRequest, ReplicaLostError
from cluster.serving.metrics import ClusterMetrics
from serving.observability.metrics import ServeMetrics
from serving.observability.record import tokens_used
from serving.observability.tracking import RequestTracking
from serving.security.editing import add_key
from serving.security.stack import secure

SSE = AnswerHead(200, ((b"content-type", b"text/event-stream"),), "sst2", "sst2@v3", True)
JSON = AnswerHead(200, ((b"content-type", b"application/json"),), "sst2", "sst2@v3", False)

Script = Callable[[ForwardedRequest], list]


class StandInReplicas:
    """Plays one script a call: parts to yield, or errors to raise."""

    def __init__(self, *scripts: list):
        self.scripts = list(scripts)
        self.requests: list[ForwardedRequest] = []
        self.cancelled = 0

    def __call__(self, request: ForwardedRequest) -> "_Stream":
        self.requests.append(request)
        return _Stream(self, self.scripts.pop(0))


class _Stream:
    def __init__(self, replicas: StandInReplicas, script: list):
        self._replicas = replicas
        self._script = list(script)

    async def __anext__(self):
        if not self._script:
            raise StopAsyncIteration
        step = self._script.pop(0)
        if isinstance(step, Exception):
            raise step
        return step

    def cancel(self) -> None:
        self._replicas.cancelled += 1


def part(replica: str = "r1", **fields) -> AnswerPart:
    return AnswerPart(replica, **fields)


ANSWER = [part(), part(head=JSON, body=b"{}", is_last=True, prompt_tokens=3, generated_tokens=4)]


class Bench:
    def __init__(self, tmp_path, *scripts, **options):
        self.keys = tmp_path / "keys.yaml"
        fields = {"id": "a", "tenant": "a", "role": "inference", "adapters": ["sst2"]}
        self.key = add_key(self.keys, **fields, tokens_per_day=100)
        config = ClusterServeConfig(
            base=tmp_path, store=str(tmp_path), keys_file=self.keys, **options
        )
        self.registry = CollectorRegistry()
        serve_metrics = ServeMetrics(10, self.registry)
        self.replicas = StandInReplicas(*scripts)
        self.lost = 0
        forwarder = Forwarder(
            self.replicas, config, serve_metrics, ClusterMetrics(self.registry), self._count_lost
        )
        secured = secure(forwarder, config, tokens_used=tokens_used)
        self.app = RequestTracking(secured, serve_metrics)

    def _count_lost(self) -> None:
        self.lost += 1

    async def post(self, path: str = "/v1/completions", key: str | None = None) -> httpx.Response:
        transport = httpx.ASGITransport(app=self.app)
        headers = {"Authorization": f"Bearer {key or self.key}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.post(path, json={"model": "sst2"}, headers=headers)

    def value(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"propulsion_{name}", labels) or 0.0


@pytest.fixture
def bench(tmp_path):
    return lambda *scripts, **options: Bench(tmp_path, *scripts, **options)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


pytestmark = pytest.mark.anyio


async def test_an_answer_passes_through_and_is_counted_once(bench):
    b = bench(ANSWER)
    response = await b.post()
    assert (response.status_code, response.text) == (200, "{}")
    assert response.headers["x-adapter-version"] == "sst2@v3"
    assert b.value("serve_requests_total", adapter="sst2", outcome="ok") == 1
    assert b.value("cluster_affinity_misses_total") == 1
    assert b.value("cluster_affinity_hits_total") == 0


async def test_a_replica_is_told_who_asks_and_never_the_key(bench):
    b = bench(ANSWER)
    await b.post()
    request = b.replicas.requests[0]
    assert request.principal.tenant == "a"
    assert request.adapter == "sst2"
    assert b.key.encode() not in repr((request.headers, request.body)).encode()


async def test_a_stranger_reaches_no_replica(bench):
    b = bench()
    response = await b.post(key="wrong")
    assert response.status_code == 401
    assert b.replicas.requests == []


@pytest.mark.parametrize("error", [ReplicaLostError("dead"), RayActorError()])
async def test_a_replica_lost_before_the_answer_costs_a_retry_elsewhere(bench, error):
    b = bench([part("r1"), error], ANSWER)
    response = await b.post()
    assert response.status_code == 200
    assert b.replicas.requests[1].avoid == {"r1"}
    assert b.value("cluster_retries_total") == 1
    assert b.value("cluster_failed_requests_total") == 0
    assert b.lost == 1


async def test_retries_are_bounded_and_all_lost_replicas_avoided(bench):
    scripts = [[part(f"r{i}"), ReplicaLostError("dead")] for i in range(5)]
    b = bench(*scripts, max_retries=2)
    response = await b.post()
    assert response.status_code == 503
    assert response.headers["retry-after"]
    assert b.replicas.requests[2].avoid == {"r0", "r1"}
    assert len(b.replicas.requests) == 3
    assert b.value("cluster_retries_total") == 2
    assert b.value("cluster_failed_requests_total") == 1
    assert b.value("serve_requests_total", adapter="unknown", outcome="server_error") == 1


async def test_a_request_that_no_replica_had_taken_is_not_held_against_its_retries(bench):
    b = bench([RayActorError()], [RayActorError()], ANSWER, max_retries=0)
    response = await b.post()
    assert response.status_code == 200
    assert b.value("cluster_retries_total") == 0


async def test_a_stream_that_a_dying_engine_ended_by_itself_counts_as_failed(bench):
    told = part(body=b'data: {"error": {}}\n\n', is_last=True, engine_failed=True)
    b = bench([part(), part(head=SSE, body=b"data: 1\n\n"), told])
    response = await b.post()
    assert response.text == 'data: 1\n\ndata: {"error": {}}\n\n'
    assert b.value("cluster_failed_requests_total") == 1
    assert b.value("serve_requests_total", adapter="sst2", outcome="server_error") == 1
    assert b.value("serve_requests_total", adapter="sst2", outcome="ok") == 0


async def test_a_stream_that_had_begun_ends_with_an_error_event_and_no_retry(bench):
    b = bench([part(), part(head=SSE, body=b"data: 1\n\n"), ReplicaLostError("dead")], ANSWER)
    response = await b.post()
    events = response.text.split("\n\n")
    assert events[0] == "data: 1"
    assert json.loads(events[1].removeprefix("data: "))["error"]["code"] == 503
    assert events[2] == "data: [DONE]"
    assert len(b.replicas.requests) == 1
    assert b.value("cluster_retries_total") == 0
    assert b.value("cluster_failed_requests_total") == 1
    assert b.value("serve_requests_total", adapter="sst2", outcome="server_error") == 1


async def test_an_anthropic_stream_ends_in_its_own_format(bench):
    b = bench([part(), part(head=SSE, body=b"data: 1\n\n"), ReplicaLostError("dead")])
    response = await b.post("/v1/messages")
    assert response.text.endswith("\n\n")
    name, data = response.text.strip().split("\n\n")[-1].split("\n")
    assert name == "event: error"
    assert json.loads(data.removeprefix("data: "))["type"] == "error"


async def test_half_an_answer_that_is_no_stream_is_not_passed_off_as_whole(bench):
    b = bench([part(), part(head=JSON, body=b'{"a"'), ReplicaLostError("dead")])
    with pytest.raises(ReplicaLostError):
        await b.post()


async def test_too_many_waiting_requests_are_told_when_to_come_back(bench):
    b = bench([BackPressureError(num_queued_requests=9, max_queued_requests=9)])
    response = await b.post()
    assert response.status_code == 503
    assert response.headers["retry-after"]
    assert b.value("cluster_failed_requests_total") == 1


async def test_a_request_that_no_replica_takes_in_time_is_given_up(bench):
    import asyncio

    class Never(StandInReplicas):
        def __call__(self, request):
            stream = super().__call__(request)
            stream.__class__ = _NeverStream
            return stream

    class _NeverStream(_Stream):
        async def __anext__(self):
            await asyncio.sleep(60)

    b = bench([], queue_timeout_seconds=0.05)
    b.replicas.__class__ = Never
    response = await b.post()
    assert response.status_code == 503
    assert b.replicas.cancelled == 1


async def test_an_error_of_the_replicas_code_is_no_loss(bench):
    b = bench([part(), ValueError("a bug")])
    with pytest.raises(ValueError, match="a bug"):
        await b.post()
    assert b.lost == 0
    assert b.value("cluster_retries_total") == 0


async def test_tokens_are_charged_to_the_key_once(bench):
    b = bench(ANSWER, ANSWER)
    await b.post()
    response = await b.post()
    assert response.headers["x-ratelimit-remaining-tokens-day"] == str(100 - 7)
