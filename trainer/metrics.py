"""`propulsion_train_*` of one run for Prometheus."""

from __future__ import annotations

from pathlib import Path

from propulsion.errors import ConfigError
from trainer.metrics_target import list_target


class TrainMetrics:
    """Labels are the run and its adapters, which a run file names one by one.

    Args:
        run: name of the run.
        port: to serve on; 0 for a free one.
        host: address to serve on.
        targets: folder in which the run is listed until `close`, if any.

    Attributes:
        registry: of the metrics.
        port: that they are served on.
        address: with the host.

    Raises:
        ConfigError: the port or the folder cannot be used.
    """

    def __init__(
        self, run: str, port: int, host: str = "127.0.0.1", targets: Path | None = None
    ) -> None:
        from prometheus_client import (
            CollectorRegistry,
            Counter,
            Gauge,
            Histogram,
            ProcessCollector,
            start_http_server,
        )

        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._run = run
        one = ["run", "adapter"]
        whole = ["run"]
        self._loss = Gauge("propulsion_train_loss", "Mean loss per target", one, registry=registry)
        self._lr = Gauge("propulsion_train_learning_rate", "Of AdamW", one, registry=registry)
        self._steps = Counter("propulsion_train_steps", "Optimiser steps", one, registry=registry)
        self._tokens = Counter(
            "propulsion_train_tokens", "Tokens trained on", one, registry=registry
        )
        self._score = Gauge(
            "propulsion_train_score_ratio",
            "Score on the test records; at most 1",
            [*one, "metric"],
            registry=registry,
        )
        self._seconds = Histogram(
            "propulsion_train_step_seconds", "Time of a step", whole, registry=registry
        )
        self._last_step = Gauge(
            "propulsion_train_last_step_timestamp_seconds",
            "Unix time of the last step; of the start before the first one",
            whole,
            registry=registry,
        )
        self._speed = Gauge(
            "propulsion_train_tokens_per_second", "Of the last step", whole, registry=registry
        )
        self._utilisation = Gauge(
            "propulsion_train_flops_utilisation_ratio",
            "Share of the GPUs' arithmetic that the model's needs (MFU)",
            whole,
            registry=registry,
        )
        # A run that hangs before its first step is seen to stand at 0.
        self._seconds.labels(run)
        self._last_step.labels(run).set_to_current_time()
        try:
            self._server, self._thread = start_http_server(port, host, registry)
        except OSError as error:
            raise ConfigError(
                f"metrics_port {port} cannot be used on {host} ({error.strerror}): "
                "choose another, or 0"
            ) from error
        self.port: int = self._server.server_port
        self.address = f"{host}:{self.port}"
        self._target = None
        if targets is not None:
            self._target = list_target(targets, run, host, self.port)

    def step(self, adapter: str, loss: float, lr: float, tokens: int) -> None:
        """An adapter's part of a step."""
        self._loss.labels(self._run, adapter).set(loss)
        self._lr.labels(self._run, adapter).set(lr)
        self._steps.labels(self._run, adapter).inc()
        self._tokens.labels(self._run, adapter).inc(tokens)

    def run_step(self, seconds: float, tokens_per_second: float, mfu: float | None) -> None:
        """A step of all adapters."""
        self._seconds.labels(self._run).observe(seconds)
        self._last_step.labels(self._run).set_to_current_time()
        self._speed.labels(self._run).set(tokens_per_second)
        if mfu is not None:
            self._utilisation.labels(self._run).set(mfu)

    def score(self, adapter: str, metric: str, value: float) -> None:
        """An evaluation of an adapter."""
        self._score.labels(self._run, adapter, metric).set(value)

    def close(self, failed: bool = False) -> None:
        """Stop serving; a run that failed stays listed, so that Prometheus misses it."""
        if self._target is not None and not failed:
            self._target.unlink(missing_ok=True)
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
