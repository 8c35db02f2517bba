"""A run on one rank: its adapters are trained together, and leave when they are done."""

from __future__ import annotations

import gc
import shutil

import torch

from propulsion.errors import ConfigError
from trainer.adapted import AdaptedModel
from trainer.checkpoint import known_adapters
from trainer.checkpoint_copies import copies_of
from trainer.config import RunConfig
from trainer.job_data import check_alike, read_job
from trainer.joining import accept_queued
from trainer.ranks import from_rank_0, join_ranks
from trainer.result import RunResult
from trainer.session import Adapt, CheckpointHook, EvaluationHook, Session


def train(
    run: RunConfig,
    *,
    overwrite: bool = False,
    on_checkpoint: CheckpointHook | None = None,
    adapt: Adapt = AdaptedModel,
    on_evaluation: EvaluationHook | None = None,
) -> RunResult:
    """Train, evaluate, save and publish the adapters of a run; every rank of the run calls this.

    A run that was cut off continues from its last checkpoint when it is started again. One that
    came to its end is not run again: its result is returned.

    Args:
        run: the run.
        overwrite: delete what an earlier run left in `output_dir`.
        on_checkpoint: called on every rank after each checkpoint was written.
        adapt: puts what is trained on the base; other methods than Propulsion give their own.
        on_evaluation: called on every rank after each evaluation, that of the bare base being of
            step 0.

    Raises:
        PropulsionError: something in the run file, the data or the output folder is wrong.
    """
    # Everything that can be wrong in the input is found before the ranks meet and memory fills.
    records = {job.name: read_job(job, run.task.type) for job in run.jobs}
    check_alike(run, list(records.values()))
    rank, world_size = join_ranks()
    if rank == 0:
        _prepare_output_dir(run, overwrite)
    torch.distributed.barrier()
    while True:
        joined = None
        if rank == 0:
            joined = accept_queued(run, known_adapters(run.output_dir))
        joined = from_rank_0(joined)
        whole = run.model_copy(update={"jobs": [*run.jobs, *joined]})
        for job in joined:
            if job.name not in records:
                records[job.name] = read_job(job, run.task.type)
        check_alike(whole, list(records.values()))
        session = Session(
            whole, len(joined), records, rank, world_size, on_checkpoint, adapt, on_evaluation
        )
        result = session.run()
        if result is not None:
            return result
        # An adapter was queued: the engine is built anew, with a place for it.
        session.close()
        del session
        gc.collect()


def _prepare_output_dir(run: RunConfig, overwrite: bool) -> None:
    if overwrite:
        clear_run(run)
    copies = None if overwrite else copies_of(run)
    try:
        run.output_dir.mkdir(parents=True, exist_ok=True)
        if copies is not None:
            copies.fetch(run.output_dir)
    except OSError as error:
        raise ConfigError(
            f"output_dir {run.output_dir} cannot be written: {error.strerror}"
        ) from error


def clear_run(run: RunConfig) -> None:
    """Delete what an earlier run left: its folder, and the copies of its checkpoints."""
    # A URL that is wrong is told before anything is gone.
    copies = copies_of(run)
    if run.output_dir.exists():
        shutil.rmtree(run.output_dir)
    if copies is not None:
        copies.clear()
