"""The runs that a comparison consists of: alike in all but the method and its rate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from propulsion.errors import ConfigError
from trainer.comparison.holdout import Holdout
from trainer.comparison.methods import Method
from trainer.config import AdapterSection, RunConfig

_POINTS = 10
"""Evaluations of a run whose file does not say when."""


def check_comparable(run: RunConfig) -> None:
    """Whether other methods than Propulsion can train such a run.

    Raises:
        ConfigError: it has several adapters, or keeps weights outside the GPU.
    """
    if len(run.jobs) != 1:
        names = ", ".join(job.name for job in run.jobs)
        raise ConfigError(
            f"compare trains one adapter with each method, but {run.name!r} has {len(run.jobs)} "
            f"({names}): give a run file of one"
        )
    if run.deepspeed.offload_param or run.deepspeed.offload_optimizer:
        raise ConfigError(
            "compare measures methods in one process without offloading: leave out "
            "deepspeed.offload_param and deepspeed.offload_optimizer"
        )


def comparable_run(
    run: RunConfig,
    method: Method,
    lr: float,
    seed: int,
    folder: Path,
    holdout: Holdout | None = None,
    *,
    chooses: bool = False,
) -> RunConfig:
    """The run of one method.

    Args:
        run: the run file's.
        method: what is trained.
        lr: peak learning rate.
        seed: of data order, dropout and initialisation.
        folder: its `output_dir`.
        holdout: what is not trained on, if rates are chosen.
        chooses: whether it is judged by the held-out records, at its end alone; else by the test
            records, all along.
    """
    job = run.jobs[0]
    training = job.training.model_copy(
        update={
            "lr": lr,
            # One that stops early would have another budget.
            "early_stop": None,
            "eval_every": None if chooses else _eval_every(job.training),
        }
    )
    data = job.data
    if holdout is not None:
        changes: dict[str, Any] = {"train_limit": holdout.num_train}
        if chooses:
            changes |= {"test": holdout.path, "test_limit": None}
        data = data.model_copy(update=changes)
    adapter = job.adapter
    if method.adapter is not None:
        kept = job.adapter.model_dump(include={"degree", "degree_pattern", "pooling"})
        adapter = AdapterSection(**kept, **method.adapter)
    one = job.model_copy(
        update={
            "name": method.name,
            "seed": seed,
            "adapter": adapter,
            "data": data,
            "training": training,
            "publish": None,
        }
    )
    return run.model_copy(
        update={
            "name": method.name,
            "seed": seed,
            "output_dir": folder,
            "jobs": [one],
            "metrics_port": None,
            "metrics_targets": None,
            "tensorboard": False,
            # One process has nothing to partition, and AdaLoRA prunes the weights themselves.
            "deepspeed": run.deepspeed.model_copy(update={"stage": 0}),
            # Packed rows have no place for virtual tokens.
            "batching": run.batching.model_copy(update={"packing": False}),
            "checkpoints": run.checkpoints.model_copy(update={"keep": 1}),
        }
    )


def _eval_every(training: Any) -> int:
    return int(training.eval_every or max(1, training.steps // _POINTS))
