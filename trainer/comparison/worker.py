"""A process of its own for one run, so that its time and memory are its own.

`python -m trainer.comparison.worker ORDER.json`, where the file holds an `Order`.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from propulsion.errors import PropulsionError
from trainer.comparison.measured import Measured, write_measured
from trainer.config import RunConfig
from trainer.result import RESULT_FILE

FAILED, INTERRUPTED = 3, 130


@dataclass(frozen=True)
class Order:
    """A run to be made. Method None trains all its adapters, and leaves `result.json` alone."""

    run: RunConfig
    method: str | None
    identity: dict[str, Any]

    def write(self, path: Path) -> None:
        """Write it for the worker."""
        path.parent.mkdir(parents=True, exist_ok=True)
        tree = {
            "run": self.run.model_dump(mode="json"),
            "method": self.method,
            "identity": self.identity,
        }
        path.write_text(json.dumps(tree, indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Order:
        """What `write` wrote."""
        tree = json.loads(path.read_text())
        return cls(RunConfig.model_validate(tree["run"]), tree["method"], tree["identity"])


def carry_out(order: Order) -> Measured | None:
    """Train in this process, and say what came of it; None for an order without a method.

    Raises:
        PropulsionError: as `trainer.loop.train`.
    """
    from trainer.loop import train

    if order.method is None:
        train(order.run)
        return None
    from trainer.comparison.memory import PeakMemory
    from trainer.comparison.other_methods import adapt_as
    from trainer.comparison.step_clock import StepClock

    adapt = adapt_as(order.method)
    sizes: list[int] = []
    clock = StepClock()

    def adapt_and_count(base: Any, run: RunConfig, task_type: str) -> Any:
        sizes.append(sum(parameter.numel() for parameter in base.parameters()))
        return clock.watch(adapt(base, run, task_type))

    _import_the_rest()
    memory = PeakMemory()
    began = time.perf_counter()
    # One that trained to its end, but did not get to be measured, is run again; and what AdaLoRA
    # has found important is in no checkpoint.
    overwrite = order.method == "adalora" or (order.run.output_dir / RESULT_FILE).exists()
    result = train(order.run, adapt=adapt_and_count, overwrite=overwrite)
    wall_seconds = time.perf_counter() - began
    one = result.only
    text = (order.run.output_dir / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    return Measured(
        identity=order.identity,
        metric=one.metric,
        score=one.score,
        scores=one.scores,
        base_score=one.base_score,
        trivial_score=one.trivial_score,
        num_test=one.num_test,
        base_parameters=sizes[0],
        trainable_parameters=one.trainable_parameters,
        curve=_curve(lines, one.metric),
        train_seconds=result.train_seconds,
        step_seconds=statistics.median(line["seconds"] for line in lines if "loss" in line),
        cpu_step_seconds=clock.median() if memory.kind == "rss" else None,
        wall_seconds=wall_seconds,
        peak_bytes=memory.bytes(),
        memory_kind=memory.kind,
    )


def _import_the_rest() -> None:
    """What training imports on its way, which is no method's own."""
    from trainer.engine import prepare_accelerator

    prepare_accelerator()
    import deepspeed  # noqa: F401
    import peft  # noqa: F401
    import sklearn.metrics  # noqa: F401
    from transformers import Trainer  # noqa: F401


def _curve(lines: list[dict[str, Any]], metric: str) -> tuple[tuple[int, float], ...]:
    # A step that was done again after an interruption counts as it was the last time.
    curve = {line["step"]: line["scores"][metric] for line in lines if "scores" in line}
    return tuple(sorted(curve.items()))


def main() -> int:
    """Carry out the order of the command line; the exit status."""
    order = Order.read(Path(sys.argv[1]))
    try:
        measured = carry_out(order)
    except KeyboardInterrupt:
        return INTERRUPTED
    except PropulsionError as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED
    if measured is not None:
        write_measured(measured, order.run.output_dir)
        # They are as large as the base where all of it is trained, and no longer needed.
        shutil.rmtree(order.run.output_dir / "checkpoints", ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
