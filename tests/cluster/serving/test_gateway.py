import pytest
from prometheus_client import CollectorRegistry, Counter, generate_latest

from cluster.serving.exposition import gateway_registry, replica_registry
from cluster.serving.gateway import LoopbackClients, OneRequestId
from cluster.serving.metrics import ClusterMetrics
from serving.observability.metrics import ServeMetrics


@pytest.fixture
def registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    metrics = ServeMetrics(2, registry)
    metrics.count_request("sst2", "ok")
    metrics.set_engine_up(True)
    ClusterMetrics(registry).count_retry()
    Counter("vllm_things", "Of vLLM.", registry=registry)
    return registry


def shown(registry: CollectorRegistry) -> str:
    return generate_latest(registry).decode()


def test_every_metric_is_shown_by_one_of_the_two(registry):
    gateway, replica = shown(gateway_registry(registry)), shown(replica_registry(registry))
    assert "propulsion_serve_requests_total{" in gateway
    assert "propulsion_serve_requests_total" not in replica
    assert "propulsion_serve_engine_up 1.0" in replica
    assert "propulsion_serve_engine_up" not in gateway
    assert "propulsion_cluster_retries_total 1.0" in gateway


async def ask(app, client) -> list[dict]:
    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "client": client}
    await app(scope, None, send)
    return sent


async def answer(scope, receive, send) -> None:
    headers = [(b"x-request-id", b"1"), (b"a", b"b")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("client", "status"),
    [(("127.0.0.1", 1), 200), (("::1", 1), 200), (("10.0.0.7", 1), 403), (None, 403)],
)
async def test_without_keys_only_this_machine_is_answered(client, status):
    sent = await ask(LoopbackClients(answer), client)
    assert sent[0]["status"] == status


@pytest.mark.anyio
async def test_the_request_id_is_left_to_the_proxy():
    sent = await ask(OneRequestId(answer), ("127.0.0.1", 1))
    assert sent[0]["headers"] == [(b"a", b"b")]
