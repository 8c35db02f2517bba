"""What a run shows while it trains: progress, JSON lines, Prometheus metrics, TensorBoard."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TextIO

from trainer.metrics import TrainMetrics
from trainer.tasks.task import Scores


@dataclass(frozen=True)
class AdapterStep:
    """One adapter's part of a step."""

    step: int
    """Of the adapter."""
    loss: float
    """Mean over the terms of its loss."""
    lr: float
    tokens: int


class Watcher(Protocol):
    """Told of every step and evaluation; only rank 0 has one that does anything."""

    def step(self, step: int, adapters: Mapping[str, AdapterStep], seconds: float) -> None:
        """A step of the run: what each adapter did, and how long it took."""

    def evaluation(
        self, adapter: str, step: int, scores: Scores, trivial_score: float | None
    ) -> None:
        """An evaluation after `step` steps of the adapter."""

    def note(self, message: str) -> None:
        """Something to tell the user."""


class SilentWatcher:
    """For the other ranks."""

    def step(self, step: int, adapters: Mapping[str, AdapterStep], seconds: float) -> None:
        pass

    def evaluation(
        self, adapter: str, step: int, scores: Scores, trivial_score: float | None
    ) -> None:
        pass

    def note(self, message: str) -> None:
        pass


class RunWatcher:
    """Shows a run on the terminal and in `metrics.jsonl`; elsewhere if asked.

    Args:
        name: of the run.
        output_dir: where `metrics.jsonl` is written.
        total_steps: of the run; more if an adapter joins it.
        metrics_port: port of /metrics; 0 for a free one, None for none.
        tensorboard: also write `output_dir/tensorboard`.
        flops_per_token: of the model, for MFU.
        peak_flops: of all the ranks' GPUs, if known.
        metrics_host: address of /metrics.
        metrics_targets: folder that lists the run for Prometheus while it goes on.
    """

    def __init__(
        self,
        name: str,
        output_dir: Path,
        total_steps: int,
        metrics_port: int | None = None,
        tensorboard: bool = False,
        flops_per_token: float = 0.0,
        peak_flops: float | None = None,
        metrics_host: str = "127.0.0.1",
        metrics_targets: Path | None = None,
    ) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.progress import TimeRemainingColumn as Remaining

        self._console = Console(stderr=True)
        self._name = name
        self._total_steps = total_steps
        self._flops_per_token = flops_per_token
        self._peak_flops = peak_flops
        self._lines: TextIO = (output_dir / "metrics.jsonl").open("a", encoding="utf-8")
        self._metrics = None
        if metrics_port is not None:
            self._metrics = TrainMetrics(name, metrics_port, metrics_host, metrics_targets)
        self._board = _tensorboard(output_dir) if tensorboard else None
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
            self.note(f"metrics at http://{self._metrics.address}/metrics")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()
        self._lines.close()
        if self._board is not None:
            self._board.close()
        if self._metrics is not None:
            stopped_by_hand = kind is not None and issubclass(kind, KeyboardInterrupt)
            self._metrics.close(failed=kind is not None and not stopped_by_hand)

    def step(self, step: int, adapters: Mapping[str, AdapterStep], seconds: float) -> None:
        tokens = sum(one.tokens for one in adapters.values())
        mfu = self._utilisation(tokens / seconds)
        for name, one in adapters.items():
            self._write(
                adapter=name,
                step=one.step,
                run_step=step,
                loss=one.loss,
                lr=one.lr,
                tokens=one.tokens,
                seconds=round(seconds, 4),
            )
            self._plot(name, one.step, loss=one.loss, learning_rate=one.lr)
            if self._metrics is not None:
                self._metrics.step(name, one.loss, one.lr, one.tokens)
        if self._metrics is not None:
            self._metrics.run_step(seconds, tokens / seconds, mfu)
        loss = sum(one.loss for one in adapters.values()) / len(adapters)
        status = f"loss {loss:.4f}  {tokens / seconds:,.0f} tokens/s"
        if len(adapters) > 1:
            status = f"{len(adapters)} adapters  mean {status}"
        if mfu is not None:
            status += f"  MFU {mfu:.1%}"
        self._bar.update(self._task, completed=step, status=status)
        if not self._console.is_terminal and (step % 50 == 0 or step == self._total_steps):
            self.note(f"step {step}/{self._total_steps}  {status}")

    def evaluation(
        self, adapter: str, step: int, scores: Scores, trivial_score: float | None
    ) -> None:
        self._write(
            adapter=adapter,
            step=step,
            metric=scores.metric,
            scores=dict(scores.values),
            trivial_score=trivial_score,
        )
        self._plot(adapter, step, **scores.values)
        if self._metrics is not None:
            self._metrics.score(adapter, scores.metric, scores.main)
        beside = "" if trivial_score is None else f" (most frequent answer {trivial_score:.3f})"
        whose = "" if adapter == self._name else f"{adapter} "
        self.note(f"{whose}after step {step}: {scores.metric} {scores.main:.3f}{beside}")

    def note(self, message: str) -> None:
        self._console.print(f"[bold]{self._name}[/]: {message}", highlight=False)

    def _utilisation(self, tokens_per_second: float) -> float | None:
        if self._peak_flops is None:
            return None
        return self._flops_per_token * tokens_per_second / self._peak_flops

    def _plot(self, adapter: str, step: int, **values: float) -> None:
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(f"{name}/{adapter}", value, step)

    def _write(self, **values: Any) -> None:
        self._lines.write(json.dumps({"time": round(time.time(), 3), **values}) + "\n")
        self._lines.flush()


def _tensorboard(output_dir: Path) -> Any:
    from tensorboardX import SummaryWriter

    return SummaryWriter(str(output_dir / "tensorboard"))
