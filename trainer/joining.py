"""Adapters that join a run while it goes on."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from propulsion.errors import ConfigError, PropulsionError
from trainer.config import JobConfig, RunConfig

_QUEUE = "queue"


def queue_job(run: RunConfig, job: JobConfig) -> Path:
    """Ask a run, one that is going on or that has ended, to train another adapter.

    Args:
        run: the run, as its file describes it.
        job: the adapter; its paths are absolute.

    Raises:
        ConfigError: the run has no output folder, or an adapter of that name already, or heads of
            another shape.
        DataError: the adapter's data cannot be read.
    """
    from trainer.job_data import check_alike, read_job

    if not run.output_dir.is_dir():
        raise ConfigError(f"{run.output_dir}: no such run yet; put the adapter into its run file")
    if job.name in {other.name for other in [*run.jobs, *queued_jobs(run.output_dir)]}:
        raise ConfigError(f"the run {run.name!r} has an adapter {job.name!r} already: rename it")
    both = run.model_copy(update={"jobs": [run.jobs[0], job]})
    check_alike(both, [read_job(one, run.task.type) for one in both.jobs])
    folder = run.output_dir / _QUEUE
    folder.mkdir(exist_ok=True)
    path = folder / f"{_next_number(folder):04d}-{job.name}.json"
    temporary = folder / f".{path.name}.{os.getpid()}"
    temporary.write_text(job.model_dump_json(indent=1))
    try:
        # Unlike a rename, it fails if another process took the number.
        os.link(temporary, path)
    except FileExistsError as error:
        raise PropulsionError(f"{path} was queued at the same moment: try again") from error
    finally:
        temporary.unlink()
    return path


def accept_queued(run: RunConfig, known: Collection[str]) -> list[JobConfig]:
    """The queued adapters that can be trained.

    One that no longer can, since its data are gone, say, is told and left out for good: an adapter
    that wants to join must not end a run.

    Args:
        run: the run.
        known: adapters that have joined it already.
    """
    from trainer.job_data import read_job

    accepted = []
    for path in _files(run.output_dir):
        job = JobConfig.model_validate_json(path.read_text())
        try:
            if job.name not in known:
                read_job(job, run.task.type)
        except PropulsionError as error:
            path.rename(path.with_suffix(".refused"))
            print(f"{run.name}: {job.name} cannot join: {error}", file=sys.stderr)
        else:
            accepted.append(job)
    return accepted


def queued_jobs(output_dir: Path) -> list[JobConfig]:
    """Adapters that were queued into a run, the first one first."""
    return [JobConfig.model_validate_json(path.read_text()) for path in _files(output_dir)]


def count_queued(output_dir: Path) -> int:
    """How many there are, without reading them."""
    return len(_files(output_dir))


def _files(output_dir: Path) -> Sequence[Path]:
    folder = output_dir / _QUEUE
    return sorted(folder.glob("[0-9]*.json")) if folder.is_dir() else ()


def _next_number(folder: Path) -> int:
    return 1 + max((int(path.name.split("-")[0]) for path in folder.glob("[0-9]*.json")), default=0)
