"""Queued runs that share a base become one run, which trains their adapters together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from cluster.training.queue_folder import QueuedRun
from cluster.training.spec import JobSpec, Member
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


def pack(members: Sequence[QueuedRun], name: str, output_dir: Path) -> JobSpec:
    """One run of all the members' adapters.

    Args:
        members: runs that go together, two or more.
        name: of that run.
        output_dir: of that run; each member's results go to its own in the end.
    """
    jobs = [job for member in members for job in member.run.jobs]
    run = members[0].run.model_copy(update={"name": name, "output_dir": output_dir, "jobs": jobs})
    return JobSpec(
        run=run,
        members=[
            Member(
                id=member.id,
                name=member.run.name,
                output_dir=member.run.output_dir,
                adapters=[job.name for job in member.run.jobs],
            )
            for member in members
        ],
    )


def _may_pack(one: QueuedRun) -> bool:
    """A run that has begun goes on by itself, from its own checkpoint."""
    wanted = one.run.cluster.pack and not one.state.alone
    return wanted and latest_checkpoint(one.run.output_dir) is None


def _settings(run: RunConfig) -> str:
    return run.model_dump_json(exclude=_OWN)


def _num_labels(run: RunConfig) -> int:
    """Of the heads; the adapters of one run have as many."""
    return len(read_job(run.jobs[0], run.task.type).labels)
