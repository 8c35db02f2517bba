"""From a run file to a job: what is checked before anything waits or starts."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from adapters.durable_files import write_file
from cluster.training.ray_jobs import RayJobs
from cluster.training.spec import JobSpec, with_lineage
from propulsion.errors import ConfigError, PropulsionError
from trainer.config import RunConfig, load_run
from trainer.job_data import check_alike, read_job

JOB_FILE = "job.json"


def checked_run(run_file: Path, overrides: list[str] | None = None) -> RunConfig:
    """Read a run file and its data, so that what is wrong in them is told now.

    Raises:
        ConfigError: the file, or a setting in it, is wrong.
        DataError: a data file is missing or malformed.
    """
    run = load_run(run_file, overrides)
    check_alike(run, [read_job(job, run.task.type) for job in run.jobs])
    if (run.base.startswith("/") or run.base.startswith(".")) and not Path(run.base).is_dir():
        raise ConfigError(f"base: {run.base} is not a folder")
    run.output_dir = Path(os.path.abspath(run.output_dir))
    return run


def submit_job(run: RunConfig, jobs: RayJobs) -> str:
    """Give a run to Ray at once, as a job; return its id.

    Raises:
        HeadUnreachableError: no head answers.
        PropulsionError: the run's folder cannot be written.
    """
    # Asked first: a run that was not started leaves nothing behind.
    jobs.require_head()
    job_id = f"{run.name}-{secrets.token_hex(4)}"
    spec = JobSpec(run=with_lineage(run, run=run.name, job=job_id))
    path = run.output_dir / JOB_FILE
    try:
        run.output_dir.mkdir(parents=True, exist_ok=True)
        write_file(path, spec.model_dump_json(indent=1).encode())
    except OSError as error:
        raise PropulsionError(
            f"output_dir {run.output_dir} cannot be written: {error.strerror}"
        ) from error
    jobs.submit(job_id, path)
    return job_id
