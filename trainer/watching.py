"""What a run shows while it trains: a progress line, JSON lines, and Prometheus metrics."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TextIO

from propulsion.errors import ConfigError


class Watcher(Protocol):
    """Told of every step and evaluation; only rank 0 has one that does anything."""

    def step(self, step: int, loss: float, lr: float, tokens: int, seconds: float) -> None:
        """One optimiser step: mean loss per target token, tokens and seconds of this step."""

    def evaluation(self, step: int, accuracy: float, majority_accuracy: float) -> None:
        """An evaluation after `step` steps."""

    def note(self, message: str) -> None:
        """Something to tell the user."""


class SilentWatcher:
    """For the other ranks."""

    def step(self, step: int, loss: float, lr: float, tokens: int, seconds: float) -> None:
        pass

    def evaluation(self, step: int, accuracy: float, majority_accuracy: float) -> None:
        pass

    def note(self, message: str) -> None:
        pass


class RunWatcher:
    """Shows a run on the terminal, in `metrics.jsonl` and, if a port is given, at `/metrics`."""

    def __init__(
        self, name: str, output_dir: Path, total_steps: int, metrics_port: int | None
    ) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.progress import TimeRemainingColumn as Remaining

        self._console = Console(stderr=True)
        self._name = name
        self._total_steps = total_steps
        self._lines: TextIO = (output_dir / "metrics.jsonl").open("a", encoding="utf-8")
        self._metrics = _PrometheusMetrics(name, metrics_port) if metrics_port is not None else None
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}"),
            Remaining(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task(name, total=total_steps, status="")

    def __enter__(self) -> RunWatcher:
        self._bar.start()
        if self._metrics is not None:
            self.note(f"metrics at http://127.0.0.1:{self._metrics.port}/metrics")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()
        self._lines.close()
        if self._metrics is not None:
            self._metrics.close()

    def step(self, step: int, loss: float, lr: float, tokens: int, seconds: float) -> None:
        status = f"loss {loss:.4f}  {tokens / seconds:,.0f} tokens/s"
        self._write(step=step, loss=loss, lr=lr, tokens=tokens, seconds=round(seconds, 4))
        self._bar.update(self._task, completed=step, status=status)
        if self._metrics is not None:
            self._metrics.step(loss, lr, tokens, seconds)
        if not self._console.is_terminal and (step % 50 == 0 or step == self._total_steps):
            self.note(f"step {step}/{self._total_steps}  {status}")

    def evaluation(self, step: int, accuracy: float, majority_accuracy: float) -> None:
        self._write(step=step, accuracy=accuracy, majority_accuracy=majority_accuracy)
        if self._metrics is not None:
            self._metrics.accuracy.labels(self._name).set(accuracy)
        self.note(
            f"after step {step}: accuracy {accuracy:.1%} (most frequent answer "
            f"{majority_accuracy:.1%})"
        )

    def note(self, message: str) -> None:
        self._console.print(f"[bold]{self._name}[/]: {message}", highlight=False)

    def _write(self, **values: Any) -> None:
        self._lines.write(json.dumps({"time": round(time.time(), 3), **values}) + "\n")
        self._lines.flush()


class _PrometheusMetrics:
    """`propulsion_train_*` of one run, served on loopback."""

    def __init__(self, run: str, port: int) -> None:
        from prometheus_client import (
            CollectorRegistry,
            Counter,
            Gauge,
            Histogram,
            start_http_server,
        )

        registry = CollectorRegistry()
        label = ["run"]
        self._run = run
        self._loss = Gauge(
            "propulsion_train_loss", "Mean loss per target token", label, registry=registry
        )
        self._lr = Gauge("propulsion_train_learning_rate", "Of AdamW", label, registry=registry)
        self._steps = Counter("propulsion_train_steps", "Optimiser steps", label, registry=registry)
        self._tokens = Counter(
            "propulsion_train_tokens", "Tokens trained on", label, registry=registry
        )
        self._seconds = Histogram(
            "propulsion_train_step_seconds", "Time of a step", label, registry=registry
        )
        self.accuracy = Gauge(
            "propulsion_train_accuracy_ratio", "Exact match, 0 to 1", label, registry=registry
        )
        try:
            self._server, self._thread = start_http_server(port, "127.0.0.1", registry)
        except OSError as error:
            raise ConfigError(
                f"metrics_port {port} cannot be used ({error.strerror}): choose another, or 0"
            ) from error
        self.port: int = self._server.server_port

    def step(self, loss: float, lr: float, tokens: int, seconds: float) -> None:
        self._loss.labels(self._run).set(loss)
        self._lr.labels(self._run).set(lr)
        self._steps.labels(self._run).inc()
        self._tokens.labels(self._run).inc(tokens)
        self._seconds.labels(self._run).observe(seconds)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
