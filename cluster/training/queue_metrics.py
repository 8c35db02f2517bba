"""Prometheus metrics of a queue."""

from __future__ import annotations

from collections import Counter as Count
from collections.abc import Sequence

from cluster.training.queue_config import QueueConfig
from cluster.training.queue_folder import QueuedRun, RunState
from propulsion.errors import ConfigError

_WAITS = (1, 10, 60, 300, 900, 3600, 4 * 3600, 12 * 3600, 24 * 3600)


class QueueMetrics:
    """Serves `/metrics` until `close`.

    Args:
        port: 0 picks a free one.
        host: address to listen on.

    Raises:
        ConfigError: host and port cannot be used.

    Attributes:
        registry: what is served.
        port: where it is served.
    """

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        from prometheus_client import (
            CollectorRegistry,
            Counter,
            Gauge,
            Histogram,
            start_http_server,
        )

        self.registry = registry = CollectorRegistry()
        self._queued = Gauge(
            "propulsion_cluster_queued_runs", "Runs that wait", ["team"], registry=registry
        )
        self._running = Gauge(
            "propulsion_cluster_running_runs", "Runs in training", ["team"], registry=registry
        )
        self._wait = Histogram(
            "propulsion_cluster_queue_wait_seconds",
            "From submission to the first start",
            buckets=_WAITS,
            registry=registry,
        )
        self._finished = Counter(
            "propulsion_cluster_finished_runs",
            "Runs that are over",
            ["team", "outcome"],
            registry=registry,
        )
        try:
            self._server, self._thread = start_http_server(port, host, registry)
        except OSError as error:
            raise ConfigError(
                f"{host}:{port} cannot be used for metrics ({error.strerror}): choose another "
                "--metrics-port, or 0, or an address of this host for --metrics-host"
            ) from error
        self.port: int = self._server.server_port

    def count(self, config: QueueConfig, runs: Sequence[QueuedRun]) -> None:
        """Set the gauges of every team."""
        states = Count((one.team, one.state.state) for one in runs)
        for team in {*config.teams, *(one.team for one in runs)}:
            self._queued.labels(team).set(states[team, "queued"])
            self._running.labels(team).set(states[team, "running"])

    def changed(self, before: QueuedRun, after: RunState) -> None:
        """A run's change of state."""
        if before.state.started is None and after.started is not None:
            self._wait.observe(after.started - before.submitted)
        if after.is_over:
            self._finished.labels(before.team, after.state).inc()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
