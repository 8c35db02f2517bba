"""Draining a node of a real Ray cluster under Serve."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import httpx
import pytest

pytestmark = pytest.mark.slow

PORT = 18731
SECONDS = 3.0


@pytest.fixture
def ray_cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import ray
    from ray import serve
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    memory = 80 * 1024**2
    nodes = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 0,
            "object_store_memory": memory,
            "include_dashboard": True,
            "dashboard_port": 18732,
        },
    )
    try:
        for _ in range(2):
            nodes.add_node(num_cpus=1, object_store_memory=memory)
        ray.init(address=nodes.address, logging_level="ERROR", log_to_driver=False)
        serve.start(http_options={"host": "127.0.0.1", "port": PORT})
        yield
        serve.shutdown()
    finally:
        ray.shutdown()
        nodes.shutdown()


@pytest.mark.usefixtures("ray_cluster")
def test_a_drained_node_finishes_what_it_has_begun_and_others_take_over() -> None:
    import ray
    from ray import serve

    from cluster.deploy.drain_node import drain_node

    @serve.deployment(num_replicas=1, max_ongoing_requests=10, graceful_shutdown_timeout_s=30)
    class Slow:
        async def __call__(self) -> str:
            import asyncio

            await asyncio.sleep(SECONDS)
            return ray.get_runtime_context().get_node_id()

    serve.run(Slow.bind(), route_prefix="/")
    url = f"http://127.0.0.1:{PORT}/"
    home = httpx.get(url, timeout=60).text
    begun: list[httpx.Response] = []
    request = threading.Thread(target=lambda: begun.append(httpx.get(url, timeout=60)))
    request.start()
    time.sleep(SECONDS / 3)
    assert drain_node(home, seconds=60)
    request.join()
    assert begun[0].status_code == 200
    assert begun[0].text == home
    assert httpx.get(url, timeout=60).text != home
