"""Runs a training run on Ray Train workers, each a rank of the DeepSpeed loop."""

from __future__ import annotations

import os
import shutil
import warnings
from pathlib import Path
from typing import Any

from propulsion.errors import ConfigError, PropulsionError
from trainer.config import RunConfig
from trainer.job_data import read_job
from trainer.result import RunResult, read_result


def train_on_ray(
    run: RunConfig, num_workers: int, *, overwrite: bool = False, max_failures: int = 1
) -> RunResult:
    """Train a run on Ray; starts a local Ray if none is configured.

    Args:
        run: the run. Its output folder must be reachable from every worker.
        num_workers: ranks; each takes one GPU where Ray has GPUs, one CPU otherwise.
        overwrite: delete what an earlier run left in `output_dir`.
        max_failures: how often a lost worker restarts the run from its last checkpoint.

    Raises:
        PropulsionError: the input is wrong, or the run failed more often than that.
    """
    # Wrong input is told at once, not from inside a worker's log.
    for job in run.jobs:
        read_job(job, run.task.type)

    import ray
    from ray.train import FailureConfig, LoggingConfig, ScalingConfig
    from ray.train import RunConfig as RayRunConfig
    from ray.train.torch import TorchTrainer

    started_here = not ray.is_initialized()
    if started_here:
        start_ray(num_workers)
    try:
        use_gpu = ray.cluster_resources().get("GPU", 0) >= num_workers
        available = ray.cluster_resources().get("CPU", 0)
        if not use_gpu and available < num_workers:
            raise ConfigError(
                f"{num_workers} workers need as many CPUs or GPUs, Ray has {available:.0f} CPUs: "
                "ask for fewer workers, or connect to a larger cluster (RAY_ADDRESS)"
            )
        if overwrite and run.output_dir.exists():
            shutil.rmtree(run.output_dir)
        trainer = TorchTrainer(
            _worker,
            train_loop_config={"run": run.model_dump(mode="json")},
            scaling_config=ScalingConfig(num_workers=num_workers, use_gpu=use_gpu),
            run_config=RayRunConfig(
                name="ray",
                storage_path=str(run.output_dir.resolve()),
                failure_config=FailureConfig(max_failures=max_failures),
                logging_config=LoggingConfig(log_level="WARNING"),
            ),
        )
        trainer.fit()
    except PropulsionError:
        raise
    except Exception as error:
        cause = _user_error(error)
        if cause is not None:
            raise cause from error
        raise
    finally:
        if started_here:
            ray.shutdown()
    return read_result(run.output_dir)


def start_ray(num_cpus: int) -> None:
    """Connect to the cluster that RAY_ADDRESS names, or start a local Ray with `num_cpus`."""
    import ray

    if "RAY_ADDRESS" in os.environ:
        ray.init(logging_level="WARNING")
        return
    # Nobody preempts the machine that Ray was started on.
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    # The data does not pass through Ray, so a small object store is enough.
    ray.init(
        num_cpus=max(num_cpus, os.cpu_count() or 1),
        object_store_memory=128 * 1024**2,
        logging_level="WARNING",
    )


def _worker(settings: dict[str, Any]) -> None:
    """One rank. Runs inside a Ray worker, where torch's process group exists already."""
    import ray.train
    import torch

    from trainer.loop import train
    from trainer.progress import Progress

    # torch's notes to DeepSpeed's authors, at every collective call.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed")
    context = ray.train.get_context()
    if not torch.cuda.is_available():
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // context.get_local_world_size()))
    # Ray names the ranks in its context; DeepSpeed reads them from the environment.
    os.environ |= {
        "RANK": str(context.get_world_rank()),
        "LOCAL_RANK": str(context.get_local_rank()),
        "WORLD_SIZE": str(context.get_world_size()),
    }
    run = RunConfig.model_validate(settings["run"])

    def report(path: Path, progress: Progress) -> None:
        ray.train.report({"step": progress.step})

    train(run, on_checkpoint=report)


def _user_error(error: BaseException | None) -> PropulsionError | None:
    """The error of ours, if one is what made a worker fail."""
    seen: set[int] = set()
    pending = [error]
    while pending:
        current = pending.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        if isinstance(current, PropulsionError):
            return current
        pending += [current.__cause__, current.__context__]
        pending += list(getattr(current, "worker_failures", {}).values())
    return None
