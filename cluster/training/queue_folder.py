"""A queue of runs as files on a folder that is shared: what survives the loss of Ray's head.

QUEUE/queue.yaml           teams and quotas, by the cluster's owner
QUEUE/runs/ID/run.json     what was submitted; never changed
QUEUE/runs/ID/state.json   where it stands; written by the dispatcher alone
QUEUE/runs/ID/cancel       asks the dispatcher to end it
QUEUE/jobs/JOB.json        what a Ray job trains
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from adapters.durable_files import sync_folder, write_file
from cluster.training.queue_config import QueueConfig, load_queue_config
from cluster.training.spec import JobSpec
from propulsion.errors import ConfigError, PropulsionError
from trainer.config import RunConfig
from trainer.config.section import Section

RUN_FILE, STATE_FILE, CANCEL_FILE = "run.json", "state.json", "cancel"
State = Literal["queued", "running", "succeeded", "failed", "cancelled"]


class Submitted(Section):
    """The content of `run.json`."""

    submitted: float = Field(description="When: seconds since 1970.")
    run: RunConfig


class RunState(Section):
    """The content of `state.json`."""

    state: State = "queued"
    job: str | None = Field(None, description="The job that trains it, alone or with others.")
    attempt: int = Field(0, description="How often that job was started.")
    alone: bool = Field(False, description="Never packed again, since a packed job failed.")
    started: float | None = Field(None, description="First time: seconds since 1970.")
    finished: float | None = None
    message: str = ""

    @property
    def ray_job(self) -> str | None:
        """Ray's id of the present attempt."""
        return None if self.job is None else f"{self.job}-{self.attempt}"

    @property
    def is_over(self) -> bool:
        return self.state in ("succeeded", "failed", "cancelled")


@dataclass(frozen=True)
class QueuedRun:
    """A run in a queue, as its files were when they were read."""

    id: str
    submitted: float
    run: RunConfig
    state: RunState
    is_cancelled: bool

    @property
    def team(self) -> str:
        return self.run.cluster.team


class QueueFolder:
    """Reads and writes the files of a queue. Any process may submit and cancel.

    Args:
        folder: on a file system that the head and all nodes share.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._runs = self.folder / "runs"
        self._jobs = self.folder / "jobs"

    def config(self) -> QueueConfig:
        """Teams, quotas and limits. Raises ConfigError."""
        return load_queue_config(self.folder)

    def submit(self, run: RunConfig) -> str:
        """Put a run at the end of the queue and return its id.

        Raises:
            ConfigError: the team is unknown, or another run that is not over writes to the same
                folder.
        """
        config = self.config()
        team = run.cluster.team
        if team not in config.teams:
            raise ConfigError(
                f"cluster.team: the queue {self.folder} has no team {team!r}; it has "
                + ", ".join(sorted(config.teams))
            )
        for other in self.runs():
            if not other.state.is_over and other.run.output_dir == run.output_dir:
                raise ConfigError(
                    f"{other.id} is {other.state.state} and writes to {run.output_dir}: wait for "
                    "it, cancel it, or choose another output_dir"
                )
        run_id = f"{run.name}-{secrets.token_hex(4)}"
        document = Submitted(submitted=time.time(), run=run).model_dump_json(indent=1)
        temporary = self._runs / f".{run_id}"
        try:
            temporary.mkdir(parents=True)
            write_file(temporary / RUN_FILE, document.encode())
            temporary.rename(self._runs / run_id)
            sync_folder(self._runs)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise PropulsionError(
                f"the queue {self.folder} cannot be written: {error.strerror}"
            ) from error
        return run_id

    def runs(self) -> list[QueuedRun]:
        """All runs, the first submitted first."""
        if not self._runs.is_dir():
            return []
        found = [self._read(path) for path in self._runs.iterdir() if not path.name.startswith(".")]
        return sorted(found, key=lambda one: (one.submitted, one.id))

    def find(self, run_id: str) -> QueuedRun:
        """A run by its id, or by the beginning of one.

        Raises:
            ConfigError: there is none, or several begin so.
        """
        names = [path.name for path in self._runs.glob("[!.]*")] if self._runs.is_dir() else []
        if run_id not in names:
            names = [name for name in names if name.startswith(run_id)]
            if len(names) != 1:
                what = "several runs begin with" if names else "there is no run"
                raise ConfigError(
                    f"{what} {run_id!r} in the queue {self.folder}: "
                    "`propulsion cluster status` lists them"
                )
            run_id = names[0]
        return self._read(self._runs / run_id)

    def write_state(self, run_id: str, state: RunState) -> None:
        """Replace `state.json`, whole or not at all. For the dispatcher. Raises PropulsionError."""
        _replace(self._runs / run_id / STATE_FILE, state)

    def cancel(self, run_id: str) -> QueuedRun:
        """Ask for the end of a run; the dispatcher sees to it.

        Raises:
            ConfigError: there is no such run, or it is over.
        """
        run = self.find(run_id)
        if run.state.is_over:
            raise ConfigError(f"{run.id} is over: it {_past(run.state.state)}")
        (self._runs / run.id / CANCEL_FILE).touch()
        return run

    def write_job(self, job: str, spec: JobSpec) -> None:
        """Write what a job trains. Raises PropulsionError."""
        self._jobs.mkdir(parents=True, exist_ok=True)
        _replace(self.job_file(job), spec)

    def job_file(self, job: str) -> Path:
        """Where that is written."""
        return self._jobs / f"{job}.json"

    def job_output(self, job: str) -> Path:
        """Where a packed job writes."""
        return self._jobs / job

    def _read(self, path: Path) -> QueuedRun:
        state_file = path / STATE_FILE
        state = RunState()
        try:
            submitted = _read_run(path / RUN_FILE)
            if state_file.exists():
                state = RunState.model_validate_json(state_file.read_text())
        except (ValidationError, OSError) as error:
            raise ConfigError(
                f"{path} holds no run that this version of propulsion wrote: remove the folder"
            ) from error
        is_cancelled = (path / CANCEL_FILE).exists()
        return QueuedRun(path.name, submitted.submitted, submitted.run, state, is_cancelled)


def running(runs: Sequence[QueuedRun]) -> list[QueuedRun]:
    """Those that a job is training."""
    return [one for one in runs if one.state.state == "running"]


def _replace(path: Path, document: Section) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write_file(temporary, document.model_dump_json(indent=1).encode())
        temporary.rename(path)
        sync_folder(path.parent)
    except OSError as error:
        raise PropulsionError(f"{path} cannot be written: {error.strerror}") from error


@lru_cache(maxsize=4096)
def _read_run(path: Path) -> Submitted:
    return Submitted.model_validate_json(path.read_text(encoding="utf-8"))


def _past(state: State) -> str:
    return {"succeeded": "succeeded", "failed": "failed"}.get(state, "was cancelled")
