"""A sweep as trials of Ray Tune: ASHA stops those that are behind, the best one is published."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cluster.training.ray_train import start_ray
from propulsion.errors import ConfigError, PropulsionError
from trainer.config import RunConfig
from trainer.job_data import read_job
from trainer.result import RESULT_FILE, AdapterResult, read_result

SWEEP_FILE = "sweep.json"


@dataclass(frozen=True)
class Trial:
    """What became of one combination of values."""

    name: str
    score: float | None
    """The last one that was measured."""
    steps: int
    is_finished: bool
    """False if it was stopped for being behind, or failed."""


@dataclass(frozen=True)
class SweepResult:
    """Written to `sweep.json`; the best trial is the first."""

    trials: tuple[Trial, ...]
    adapter: str
    """Of the best trial: its reference in the store, or its folder if it was not published."""
    held_back: str
    """Why it did not pass its gate; empty if it did."""


def sweep(
    run: RunConfig,
    *,
    num_trials: int | None = None,
    concurrent: int | None = None,
    grace_steps: int | None = None,
    reduction_factor: float = 3,
) -> SweepResult:
    """Train the combinations of a run's `sweep` as trials, and publish the best adapter.

    Args:
        run: each of its adapters is a trial, on one rank.
        num_trials: that many combinations drawn at random; all if not given.
        concurrent: trials at once; as many as Ray has room for if not given.
        grace_steps: no trial is stopped before; its first evaluation if not given.
        reduction_factor: of the trials at a rung, one in so many goes on.

    Raises:
        ConfigError: the run has nothing to compare, or its adapters are not evaluated on the way.
        DataError: a data file is missing or malformed.
        PropulsionError: no trial came to its end.
    """
    jobs = _chosen(run, num_trials)
    for job in jobs:
        read_job(job, run.task.type)
    runs = {
        job.name: run.model_copy(
            update={
                "name": job.name,
                "output_dir": Path(os.path.abspath(run.output_dir)) / "trials" / job.name,
                "jobs": [job.model_copy(update={"publish": None})],
            }
        )
        for job in jobs
    }

    import ray
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler

    started_here = not ray.is_initialized()
    if started_here:
        start_ray(concurrent or 1)
    try:
        has_gpu = ray.cluster_resources().get("GPU", 0) >= 1
        use_gpu = has_gpu if run.cluster.gpus is None else run.cluster.gpus
        resources = {"cpu": run.cluster.cpus_per_worker, **({"gpu": 1} if use_gpu else {})}
        settings = {name: one.model_dump(mode="json") for name, one in runs.items()}
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(_train_trial, runs=settings), resources),
            param_space={"trial": tune.grid_search(sorted(runs))},
            tune_config=tune.TuneConfig(
                metric="score",
                mode="max",
                max_concurrent_trials=concurrent,
                scheduler=ASHAScheduler(
                    time_attr="step",
                    # Tune kills a trial that reaches it, and one that ends has yet to be saved.
                    max_t=max(job.training.steps for job in jobs) + 1,
                    grace_period=grace_steps or min(job.training.eval_every or 1 for job in jobs),
                    reduction_factor=reduction_factor,
                ),
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(Path(os.path.abspath(run.output_dir))),
                failure_config=tune.FailureConfig(max_failures=run.cluster.max_failures),
                verbose=0,
            ),
        )
        reported = {
            one.config["trial"]: one.metrics or {} for one in tuner.fit() if one.config is not None
        }
    finally:
        if started_here:
            ray.shutdown()
    return _concluded(run, runs, reported)


def _chosen(run: RunConfig, num_trials: int | None) -> list[Any]:
    jobs = list(run.jobs)
    if num_trials is not None and num_trials < len(jobs):
        jobs = random.Random(run.seed).sample(jobs, num_trials)
    if len(jobs) < 2:
        raise ConfigError(
            "there is nothing to compare: give values in the run file's `sweep`, as "
            "`sweep: {training.lr: [1e-3, 3e-3], adapter.degree: [5, 15]}`"
        )
    for job in jobs:
        if job.training.eval_every is None:
            raise ConfigError(
                f"{job.name}: training.eval_every is needed, since trials that are behind are "
                "stopped by their scores on the way"
            )
    return jobs


def _train_trial(config: dict[str, Any], runs: Mapping[str, Any]) -> None:
    """One trial, in a process of its own; continues from its checkpoint if it was lost."""
    import torch
    from ray import tune

    from trainer.loop import train
    from trainer.tasks.task import Scores

    run = RunConfig.model_validate(runs[config["trial"]])
    if not torch.cuda.is_available():
        torch.set_num_threads(max(1, int(run.cluster.cpus_per_worker)))
    last = 0

    def report(_: str, step: int, scores: Scores) -> None:
        nonlocal last
        if step > last:
            last = step
            tune.report({"step": step, "score": scores.main})

    result = train(run, on_evaluation=report).only
    if result.score is not None and result.steps > last:
        tune.report({"step": result.steps, "score": result.score})


def _concluded(
    run: RunConfig, runs: Mapping[str, RunConfig], reported: Mapping[str, Any]
) -> SweepResult:
    finished = {
        name: read_result(one.output_dir).only
        for name, one in runs.items()
        if (one.output_dir / RESULT_FILE).exists()
    }
    trials = sorted(
        (_trial(name, finished.get(name), reported.get(name, {})) for name in runs),
        key=lambda one: (one.is_finished, -1e9 if one.score is None else one.score),
        reverse=True,
    )
    if not trials[0].is_finished:
        raise PropulsionError(
            f"no trial of {run.name!r} came to its end: {run.output_dir / 'tune'} has their errors"
        )
    adapter, held_back = _publish(run, runs, finished[trials[0].name])
    result = SweepResult(tuple(trials), adapter, held_back)
    path = run.output_dir / SWEEP_FILE
    path.write_text(json.dumps(asdict(result), indent=1) + "\n")
    return result


def _trial(name: str, result: AdapterResult | None, reported: Mapping[str, Any]) -> Trial:
    if result is not None and result.score is not None:
        return Trial(name, result.score, result.steps, True)
    return Trial(name, reported.get("score"), int(reported.get("step", 0)), False)


def _publish(run: RunConfig, runs: Mapping[str, RunConfig], best: AdapterResult) -> tuple[str, str]:
    from trainer.identity import fingerprint_of, run_identity
    from trainer.publishing import publish_adapter

    (job,) = (one for one in run.jobs if one.name == best.name)
    if job.publish is None:
        return best.adapter, ""
    # The sweep's name is what users of the adapter know, not that of a combination of values.
    publish = job.publish.model_copy(
        update={
            "name": job.publish.name or run.name,
            "lineage": {**job.publish.lineage, "sweep": run.name, "trial": job.name},
        }
    )
    identity = run_identity(runs[best.name], fingerprint_of(run.base))
    return publish_adapter(
        job.model_copy(update={"publish": publish}),
        Path(best.adapter),
        identity,
        best.metric,
        best.scores,
        best.base_score,
    )
