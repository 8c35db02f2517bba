"""A Ray cluster of several nodes on this machine, whose nodes and engines can be killed."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import ray
from ray import serve
from ray._common.utils import get_default_ray_temp_dir
from ray.cluster_utils import Cluster
from ray.serve.config import HTTPOptions, ProxyLocation

from cluster.serving.app import application
from cluster.serving.config import ClusterServeConfig

APP_NAME = "propulsion"
_OBJECT_STORE_BYTES = 80 * 1024**2
_START_SECONDS = 400
_ENGINE = "VLLM::EngineCore"


class Nodes:
    """A head node for the gateway, and nodes with room for one replica each.

    Args:
        count: nodes for replicas.
        temp_dir: where Ray writes; short, for its sockets' paths are limited.
    """

    def __init__(self, count: int, temp_dir: Path):
        head = {
            "num_cpus": 0,
            "object_store_memory": _OBJECT_STORE_BYTES,
            "temp_dir": str(temp_dir),
            "include_dashboard": False,
        }
        # Wherever its head writes, Cluster leaves its address there.
        Path(get_default_ray_temp_dir()).mkdir(parents=True, exist_ok=True)
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self._nodes: list[Any] = [self._add() for _ in range(count)]
        ray.init(address=self._cluster.address, logging_level="WARNING", log_to_driver=False)
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        serve.start(
            proxy_location=ProxyLocation.HeadOnly,
            http_options=HTTPOptions(host="127.0.0.1", port=self.port),
        )

    def deploy(self, config: ClusterServeConfig, *, wait: bool = True) -> None:
        """Roll the application out, over the one there may be."""
        target = serve.RunTarget(target=application(config), name=APP_NAME, route_prefix="/")
        serve.run_many([target], wait_for_applications_running=wait)

    def delete(self) -> None:
        """Take the application down."""
        serve.delete(APP_NAME)

    def wait_for_replicas(self, count: int) -> None:
        """Return once the gateway knows that many running replicas, and no other ones."""

        def is_so() -> bool:
            states = replica_counts(self.url)
            return states == {"running": count, "starting": 0, "draining": 0}

        wait_for(is_so)

    def kill_engine(self) -> None:
        """Kill one replica's engine, the oldest, as if it had run out of memory."""
        engines = [process for process in self._processes() if process.name() == _ENGINE]
        min(engines, key=psutil.Process.create_time).kill()

    @contextlib.contextmanager
    def hanging(self, deployment: str) -> Iterator[None]:
        """Within the block, one process of a deployment stands still.

        Args:
            deployment: "Gateway" or "Replica".
        """
        process = next(process for process in self._processes() if _runs(process, deployment))
        process.suspend()
        try:
            yield
        finally:
            process.resume()

    def kill_node(self) -> None:
        """Kill a node that has a replica, with everything on it; another one takes its place."""
        node = next(node for node in self._nodes if _has_replica(node))
        self._nodes.remove(node)
        processes = _descendants(node)
        self._cluster.remove_node(node, allow_graceful=False)
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def add_node(self) -> None:
        """Add a node with room for one replica."""
        self._nodes.append(self._add())

    def close(self) -> None:
        """Stop everything."""
        with contextlib.suppress(Exception):
            serve.shutdown()
        ray.shutdown()
        left = [*self._processes()]
        self._cluster.shutdown()
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def _add(self) -> Any:
        return self._cluster.add_node(num_cpus=1, object_store_memory=_OBJECT_STORE_BYTES)

    def _processes(self) -> Iterator[psutil.Process]:
        for node in (self._cluster.head_node, *self._nodes):
            yield from _descendants(node)


def replica_counts(url: str) -> dict[str, int]:
    """Replicas by state, as the gateway's metrics say."""
    return {
        labels["state"]: int(value)
        for name, labels, value in samples(httpx.get(f"{url}/metrics", timeout=30).text)
        if name == "propulsion_cluster_replicas"
    }


def samples(exposition: str) -> Iterator[tuple[str, dict[str, str], float]]:
    """Name, labels and value of everything that a `/metrics` says."""
    from prometheus_client.parser import text_string_to_metric_families

    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            yield sample.name, sample.labels, sample.value


def wait_for(condition: Callable[[], bool], seconds: float = _START_SECONDS) -> float:
    """Seconds until it holds.

    Raises:
        TimeoutError: it does not.
    """
    started = time.monotonic()
    while time.monotonic() - started < seconds:
        with contextlib.suppress(httpx.HTTPError):
            if condition():
                return time.monotonic() - started
        time.sleep(0.2)
    raise TimeoutError(f"it did not come about within {seconds:.0f} s")


def _descendants(node: Any) -> list[psutil.Process]:
    raylet = node.all_processes["raylet"][0].process.pid
    try:
        return psutil.Process(raylet).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _has_replica(node: Any) -> bool:
    return any(_runs(process, "Replica") for process in _descendants(node))


def _runs(process: psutil.Process, deployment: str) -> bool:
    try:
        return any(f"ServeReplica:{APP_NAME}:{deployment}" in part for part in process.cmdline())
    except psutil.NoSuchProcess:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
