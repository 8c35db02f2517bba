"""What becomes of submitted runs, whether they wait in a queue or went to Ray at once."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.training.queue_folder import QueuedRun, QueueFolder
from cluster.training.ray_jobs import HeadUnreachableError, JobInfo, RayJobs, UnknownJobError
from propulsion.errors import ConfigError, PropulsionError

_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Status:
    """A line of `propulsion cluster status`."""

    id: str
    state: str
    team: str = ""
    priority: str = ""
    waited_seconds: float | None = None
    message: str = ""


class Tracker:
    """Finds runs by id, in a queue if one is given, else among Ray's jobs.

    Args:
        address: of the Ray head's dashboard.
        python: command of the Python on the head; this process's if None.
        queue: folder of the queue, if there is one.
    """

    def __init__(self, address: str, python: str | None, queue: Path | None) -> None:
        self.jobs = RayJobs(address, python or sys.executable)
        self.queue = None if queue is None else QueueFolder(queue)

    def statuses(self) -> list[Status]:
        """Of all runs, the first submitted first."""
        if self.queue is None:
            return [_of_job(one) for one in self.jobs.jobs()]
        return [_of_run(one) for one in self.queue.runs()]

    def status(self, run_id: str) -> Status:
        """Of one run. Raises ConfigError if there is none."""
        if self.queue is not None:
            return _of_run(self.queue.find(run_id))
        return _of_job(self._known(run_id))

    def cancel(self, run_id: str) -> str:
        """End a run and say so.

        Raises:
            ConfigError: there is none, or it is over.
        """
        if self.queue is not None:
            run = self.queue.cancel(run_id)
            if run.state.state == "queued":
                return f"{run.id} is taken from the queue"
            return f"{run.id} is asked to end"
        info = self._known(run_id)
        if not self.jobs.stop(info.id):
            raise ConfigError(f"{info.id} is over: {info.state}")
        return f"{info.id} is asked to end"

    def logs(self, run_id: str) -> str:
        """What a run has printed so far.

        Raises:
            ConfigError: there is none, or it has not started.
        """
        if self.queue is None:
            return self.jobs.logs(self._known(run_id).id)
        run = self.queue.find(run_id)
        if run.state.ray_job is None:
            raise ConfigError(f"{run.id} has printed nothing: it is {run.state.state}")
        try:
            return self.jobs.logs(run.state.ray_job)
        except UnknownJobError as error:
            raise _gone(run) from error

    def follow(self, run_id: str) -> None:
        """Print what a run prints until it ends, over the losses of a head.

        Raises:
            PropulsionError: it did not end well.
        """
        if self.queue is None:
            job = self._known(run_id).id
            self._print(job)
            info = self.jobs.info(job)
            if info.state != "succeeded":
                raise PropulsionError(f"{job} {info.state}: {info.message}")
            return
        run = self.queue.find(run_id)
        printed = None
        while not run.state.is_over or run.state.ray_job not in (None, printed):
            if run.state.ray_job not in (None, printed):
                try:
                    self._print(run.state.ray_job or "")
                    printed = run.state.ray_job
                except (HeadUnreachableError, UnknownJobError) as error:
                    if run.state.is_over:
                        raise _gone(run) from error
            time.sleep(_POLL_SECONDS)
            run = self.queue.find(run_id)
        if run.state.state != "succeeded":
            raise PropulsionError(f"{run.id} {run.state.state}: {run.state.message}")

    def _print(self, job: str) -> None:
        for piece in self.jobs.follow(job):
            sys.stdout.write(piece)
            sys.stdout.flush()

    def _known(self, job: str) -> JobInfo:
        info = self.jobs.info(job)
        if info.state == "lost" and info.message.startswith("Ray's head does not know"):
            raise ConfigError(
                f"{self.jobs.address} has no job {job!r}: `propulsion cluster status` lists them; "
                "a run in a queue needs --queue"
            )
        return info


def print_statuses(statuses: Sequence[Status]) -> None:
    """One table on standard output."""
    from rich.console import Console
    from rich.table import Table

    if not statuses:
        print("no runs")
        return
    has_queue = any(one.team for one in statuses)
    table = Table("run", "state", *(("team", "priority", "waited") if has_queue else ()), "")
    for one in statuses:
        waited = "" if one.waited_seconds is None else f"{one.waited_seconds:.0f} s"
        queued = (one.team, one.priority, waited) if has_queue else ()
        table.add_row(one.id, one.state, *queued, one.message)
    Console().print(table)


def _of_job(info: JobInfo) -> Status:
    return Status(info.id, info.state, message=info.message)


def _of_run(run: QueuedRun) -> Status:
    state = run.state
    until = state.started or state.finished or time.time()
    message = state.message
    if state.state == "running":
        restarts = f", attempt {state.attempt}" if state.attempt > 1 else ""
        message = f"job {state.ray_job}{restarts}"
    named = "cancelling" if run.is_cancelled and not state.is_over else state.state
    return Status(
        run.id, named, run.team, str(run.run.cluster.priority), until - run.submitted, message
    )


def _gone(run: QueuedRun) -> ConfigError:
    return ConfigError(
        f"the log of {run.id} went with the Ray head that had it; {run.run.output_dir} has what "
        "the run has written"
    )
