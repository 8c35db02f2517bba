"""Runs a training run on Ray Train workers, each a rank of the DeepSpeed loop."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.durable_files import locked
from cluster.training.queue_config import Capacity
from propulsion.errors import ConfigError, PropulsionError
from trainer.config import ClusterSection, RunConfig
from trainer.job_data import read_job
from trainer.result import RunResult, read_result

if TYPE_CHECKING:
    from ray.train import ScalingConfig, UserCallback


def train_on_ray(
    run: RunConfig,
    num_workers: int | None = None,
    *,
    overwrite: bool = False,
    capacity: Capacity | None = None,
) -> RunResult:
    """Train a run on Ray; starts a local Ray if none is configured.

    Args:
        run: the run; its section `cluster` says on how much. Its output folder must be reachable
            from every worker.
        num_workers: ranks, instead of the section's.
        overwrite: delete what an earlier run left in `output_dir`.
        capacity: what an autoscaled cluster can grow to; what its nodes have now if not given.

    Raises:
        PropulsionError: the input is wrong, or the run lost workers more often than it may.
    """
    # Wrong input is told at once, not from inside a worker's log.
    for job in run.jobs:
        read_job(job, run.task.type)

    import ray

    wanted = run.cluster
    if num_workers is not None:
        wanted = wanted.model_copy(update={"workers": num_workers})
    started_here = not ray.is_initialized()
    if started_here:
        start_ray(wanted.max_workers)
    try:
        if capacity is None:
            capacity = Capacity.of(ray.cluster_resources())
        scaling = scaling_config(wanted, capacity)
        if overwrite:
            from trainer.loop import clear_run

            clear_run(run)
        _fit(run, scaling, wanted.max_failures)
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


def scaling_config(wanted: ClusterSection, capacity: Capacity) -> ScalingConfig:
    """What Ray Train is asked for; GPUs, unless told, where there are enough of them.

    Raises:
        ConfigError: the cluster has no room for the fewest workers.
    """
    from ray.train import ScalingConfig

    gpus, cpus = capacity.gpus, capacity.cpus
    use_gpu = gpus >= wanted.min_workers if wanted.gpus is None else wanted.gpus
    has, kind = (gpus, "GPUs") if use_gpu else (cpus / max(wanted.cpus_per_worker, 1e-9), "CPUs")
    if has < wanted.min_workers:
        raise ConfigError(
            f"{wanted.min_workers} workers need as many {kind}, Ray has {gpus:.0f} GPUs and "
            f"{cpus:.0f} CPUs: ask for fewer workers, or connect to a larger cluster (RAY_ADDRESS)"
        )
    return ScalingConfig(
        num_workers=wanted.workers,
        use_gpu=use_gpu,
        resources_per_worker={"CPU": wanted.cpus_per_worker, **({"GPU": 1} if use_gpu else {})},
        placement_strategy=wanted.placement,
        elastic_resize_monitor_interval_s=wanted.resize_seconds,
    )


def _fit(run: RunConfig, scaling: ScalingConfig, max_failures: int) -> None:
    from ray.train import FailureConfig, LoggingConfig
    from ray.train import RunConfig as RayRunConfig
    from ray.train.torch import TorchTrainer

    trainer = TorchTrainer(
        _worker,
        train_loop_config={"run": run.model_dump(mode="json")},
        scaling_config=scaling,
        run_config=RayRunConfig(
            name="ray",
            storage_path=str(run.output_dir.resolve()),
            failure_config=FailureConfig(max_failures=max_failures),
            logging_config=LoggingConfig(log_level="WARNING"),
            callbacks=[_end_on_user_error()],
        ),
    )
    trainer.fit()


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
        # Not one that somebody else runs on this machine.
        address="local",
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

    if context.get_world_rank() != 0:
        train(run, on_checkpoint=report)
        return
    # A head that was lost may have left ranks that still write; two of a kind must not.
    run.output_dir.mkdir(parents=True, exist_ok=True)
    with locked(run.output_dir / ".lock"):
        train(run, on_checkpoint=report)


def _end_on_user_error() -> UserCallback:
    from ray.train import UserCallback

    class EndOnUserError(UserCallback):
        """What a user has to mend is not tried again; only what Ray lost is."""

        def after_exception(
            self, run_context: Any, worker_exceptions: Mapping[int, Exception]
        ) -> None:
            for error in worker_exceptions.values():
                cause = _user_error(error)
                if cause is not None:
                    raise cause

    return EndOnUserError()


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
        pending += [getattr(current, name, None) for name in ("controller_failure", "_base_exc")]
        pending += list(getattr(current, "worker_failures", {}).values())
    return None
