"""Stands in for the gateway and the queue, which are not needed to watch them: what they expose."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from cluster.serving.metrics import ClusterMetrics

PREFIX = "propulsion_cluster_"


class GatewayStandIn:
    """Metrics of a gateway with one replica, which is a real server, and of a queue of runs.

    Every scrape is a moment in which some requests were routed.
    """

    def __init__(self, replica: str):
        self.targets = [{"targets": [replica], "labels": {"role": "replica", "replica": "r0"}}]
        self._registry = registry = CollectorRegistry()
        self._gateway = gateway = ClusterMetrics(registry)
        gateway.set_replicas({"running": 1})
        gateway.set_queue_length("r0", 2)
        for name in ("queued_runs", "running_runs"):
            Gauge(f"{PREFIX}{name}", "-", ["team"], registry=registry).labels("red").set(1)
        self._wait = Histogram(f"{PREFIX}queue_wait_seconds", "-", registry=registry)
        self._finished = Counter(
            f"{PREFIX}finished_runs", "-", ["team", "outcome"], registry=registry
        )

    def metrics(self) -> bytes:
        """What a scrape gets."""
        for route, number in (("home", 20), ("spill", 1)):
            for _ in range(number):
                self._gateway.count_routed(route)
                self._gateway.count_affinity(route == "home")
        self._gateway.observe_recovery(3.0)
        self._wait.observe(60.0)
        self._finished.labels("red", "succeeded").inc()
        return generate_latest(self._registry)


@contextmanager
def serving(stand_in: GatewayStandIn) -> Iterator[int]:
    """Answer /metrics and /metrics/targets on the loopback port that this yields."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_targets = self.path == "/metrics/targets"
            body = json.dumps(stand_in.targets).encode() if is_targets else stand_in.metrics()
            self.send_response(200)
            self.send_header("Content-Type", "application/json" if is_targets else "text/plain")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
