"""Queued runs that share a base become one run, which trains their adapters together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from cluster.training.queue_config import Capacity
from cluster.training.queue_folder import QueuedRun
from cluster.training.spec import JobSpec, Member, with_lineage
from propulsion.errors import PropulsionError
from trainer.checkpoint import latest_checkpoint
from trainer.config import RunConfig
from trainer.job_data import read_job

_OWN = {"name": True, "output_dir": True, "jobs": True, "cluster": {"priority"}}
"""In what packed runs may differ."""


def packed_with(first: QueuedRun, waiting: Iterable[QueuedRun], most: int) -> list[QueuedRun]:
    """The run that is to start, and the waiting ones that can be trained with it.

    Packed runs are of one team and have the same base, task, seed, precision, ZeRO stage, batching
    and cluster settings. Their adapters have different names and heads of one shape.

    Args:
        first: the run that is to start.
        waiting: in the order in which they would start.
        most: how many runs a pack may have.
    """
    members = [first]
    if not _may_pack(first):
        return members
    settings, labels = _settings(first.run), _num_labels(first.run)
    if labels is None:
        return members
    names = {job.name for job in first.run.jobs}
    for one in waiting:
        if len(members) == most:
            break
        own = {job.name for job in one.run.jobs}
        if one.id == first.id or not _may_pack(one) or own & names:
            continue
        if _settings(one.run) == settings and _num_labels(one.run) == labels:
            members.append(one)
            names |= own
    return members


def job_spec(
    members: Sequence[QueuedRun], job: str, output_dir: Path, capacity: Capacity | None = None
) -> JobSpec:
    """What a job trains: a run that is alone, or one run of all the adapters of a pack.

    Args:
        members: a run, or runs that go together.
        job: name of the job.
        output_dir: of a pack; each member's results go to its own in the end.
        capacity: what an autoscaled cluster can grow to.
    """
    runs = [with_lineage(one.run, run=one.run.name, queued_as=one.id, job=job) for one in members]
    if len(members) == 1:
        return JobSpec(run=runs[0], capacity=capacity)
    jobs = [adapter for run in runs for adapter in run.jobs]
    whole = runs[0].model_copy(update={"name": job, "output_dir": output_dir, "jobs": jobs})
    return JobSpec(
        run=whole,
        capacity=capacity,
        members=[
            Member(
                id=one.id,
                name=one.run.name,
                output_dir=one.run.output_dir,
                adapters=[adapter.name for adapter in one.run.jobs],
            )
            for one in members
        ],
    )


def _may_pack(one: QueuedRun) -> bool:
    """A run that has begun goes on by itself, from its own checkpoint."""
    wanted = one.run.cluster.pack and not one.state.alone
    return wanted and latest_checkpoint(one.run.output_dir) is None


def _settings(run: RunConfig) -> str:
    return run.model_dump_json(exclude=_OWN)


def _num_labels(run: RunConfig) -> int | None:
    """Of the heads, of which the adapters of one run have as many; None if the data are gone."""
    try:
        return len(read_job(run.jobs[0], run.task.type).labels)
    except PropulsionError:
        return None
