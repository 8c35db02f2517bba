"""`propulsion_train_*` of one run for Prometheus, served on loopback."""

from __future__ import annotations

from propulsion.errors import ConfigError


class TrainMetrics:
    """Labels are the run and its adapters, which a run file names one by one.

    Raises:
        ConfigError: the port cannot be used.
    """

    def __init__(self, run: str, port: int) -> None:
        from prometheus_client import (
            CollectorRegistry,
            Counter,
            Gauge,
            Histogram,
            start_http_server,
        )

        registry = CollectorRegistry()
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
        self._speed = Gauge(
            "propulsion_train_tokens_per_second", "Of the last step", whole, registry=registry
        )
        self._utilisation = Gauge(
            "propulsion_train_flops_utilisation_ratio",
            "Share of the GPUs' arithmetic that the model's needs (MFU)",
            whole,
            registry=registry,
        )
        try:
            self._server, self._thread = start_http_server(port, "127.0.0.1", registry)
        except OSError as error:
            raise ConfigError(
                f"metrics_port {port} cannot be used ({error.strerror}): choose another, or 0"
            ) from error
        self.port: int = self._server.server_port

    def step(self, adapter: str, loss: float, lr: float, tokens: int) -> None:
        """An adapter's part of a step."""
        self._loss.labels(self._run, adapter).set(loss)
        self._lr.labels(self._run, adapter).set(lr)
        self._steps.labels(self._run, adapter).inc()
        self._tokens.labels(self._run, adapter).inc(tokens)

    def run_step(self, seconds: float, tokens_per_second: float, mfu: float | None) -> None:
        """A step of all adapters."""
        self._seconds.labels(self._run).observe(seconds)
        self._speed.labels(self._run).set(tokens_per_second)
        if mfu is not None:
            self._utilisation.labels(self._run).set(mfu)

    def score(self, adapter: str, metric: str, value: float) -> None:
        """An evaluation of an adapter."""
        self._score.labels(self._run, adapter, metric).set(value)

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
