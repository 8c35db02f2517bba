"""The process that gives the runs of a queue to Ray, when quota and room allow it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from adapters.durable_files import acquire_lock
from cluster.training.pack import job_spec, packed_with
from cluster.training.queue_config import Capacity
from cluster.training.queue_folder import QueuedRun, QueueFolder, RunState, running
from cluster.training.queue_metrics import QueueMetrics
from cluster.training.quotas import in_order, next_to_start, why_never
from cluster.training.ray_jobs import HeadUnreachableError, JobInfo, RayJobs, UnknownJobError
from propulsion.errors import ConfigError, PropulsionError
from trainer.result import RESULT_FILE, read_result


class Dispatcher:
    """Starts queued runs on Ray and writes down what becomes of them.

    All it knows lies in the queue's folder, so that it, and Ray's head, can be lost at any time: a
    job that the head no longer knows is started again, and continues from its checkpoint.

    Args:
        queue: the queue; one dispatcher at a time has it.
        jobs: Ray's head.
        note: tells the user.
        metrics: what is told to Prometheus.
    """

    def __init__(
        self,
        queue: QueueFolder,
        jobs: RayJobs,
        note: Callable[[str], None],
        metrics: QueueMetrics | None = None,
    ) -> None:
        self._queue = queue
        self._jobs = jobs
        self._note = note
        self._metrics = metrics
        self._is_reachable = True
        self._config = queue.config()
        self._config_problem = ""

    def run(self, poll_seconds: float = 2.0) -> None:
        """Work until interrupted."""
        while True:
            self.step()
            time.sleep(poll_seconds)

    def step(self) -> None:
        """Look once at every run: end, start and count what there is to."""
        self._read_config()
        runs = self._queue.runs()
        try:
            runs = self._end_cancelled(runs)
            runs = self._look_at_running(runs)
            runs = self._start(runs)
        except HeadUnreachableError as error:
            if self._is_reachable:
                self._note(f"{error}. The queue is kept; waiting for the head")
            self._is_reachable = False
        else:
            self._is_reachable = True
        if self._metrics is not None:
            self._metrics.count(self._config, runs)

    def _read_config(self) -> None:
        """A slip in `queue.yaml` must not end a service: what held before goes on to hold."""
        problem = ""
        try:
            self._config = self._queue.config()
        except ConfigError as error:
            problem = str(error)
        if problem and problem != self._config_problem:
            self._note(f"{problem}\nThe settings before go on to hold")
        self._config_problem = problem

    def _end_cancelled(self, runs: Sequence[QueuedRun]) -> list[QueuedRun]:
        after = list(runs)
        for one in runs:
            if not one.is_cancelled or one.state.is_over:
                continue
            if one.state.state == "running":
                self._stop(one)
            after = self._changed(after, one, state="cancelled", message="cancelled by a user")
            for other in running(after):
                if other.state.job == one.state.job:
                    after = self._again(after, other, f"{one.id}, packed with it, was cancelled")
        return after

    def _stop(self, one: QueuedRun) -> None:
        job = one.state.ray_job
        assert job is not None
        try:
            self._jobs.stop(job)
            # Its successor must not find it still writing.
            while self._jobs.info(job).state in ("pending", "running"):
                time.sleep(0.2)
        except UnknownJobError:
            return

    def _look_at_running(self, runs: Sequence[QueuedRun]) -> list[QueuedRun]:
        after = list(runs)
        infos: dict[str, JobInfo] = {}
        for one in running(runs):
            job = one.state.ray_job
            assert job is not None
            if job not in infos:
                infos[job] = self._jobs.info(job)
        for job, info in infos.items():
            members = [one for one in running(after) if one.state.ray_job == job]
            if info.state == "lost":
                after = self._restart(after, members, info)
            for one in members:
                if info.state == "succeeded":
                    after = self._ended(after, one)
                elif info.state == "stopped":
                    after = self._changed(
                        after, one, state="cancelled", message="stopped through Ray"
                    )
                elif info.state == "failed" and len(members) > 1:
                    after = self._again(after, one, "the job that it was packed into failed")
                elif info.state == "failed":
                    message = self._last_error(job) or info.message
                    after = self._changed(after, one, state="failed", message=message)
        return after

    def _ended(self, runs: Sequence[QueuedRun], one: QueuedRun) -> list[QueuedRun]:
        if not (one.run.output_dir / RESULT_FILE).exists():
            message = f"{one.run.output_dir / RESULT_FILE} is missing, though its job ended well"
            return self._changed(runs, one, state="failed", message=message)
        results = read_result(one.run.output_dir).adapters
        diverged = [result.name for result in results if result.status == "diverged"]
        if len(diverged) == len(results):
            return self._changed(runs, one, state="failed", message="the loss was not finite")
        published = ", ".join(result.adapter for result in results if result.adapter)
        return self._changed(runs, one, state="succeeded", message=published)

    def _restart(
        self, runs: Sequence[QueuedRun], members: Sequence[QueuedRun], info: JobInfo
    ) -> list[QueuedRun]:
        """Start a job again under a new id."""
        after = list(runs)
        attempt = members[0].state.attempt + 1
        job = members[0].state.job
        assert job is not None
        if attempt > 1 + self._config.max_restarts:
            for one in members:
                message = f"lost {attempt} times, at last: {info.message}"
                after = self._changed(after, one, state="failed", message=message)
            return after
        for one in members:
            after = self._changed(after, one, attempt=attempt)
        self._note(f"{job} was lost ({info.message}): it starts again from its checkpoint")
        self._jobs.submit(f"{job}-{attempt}", self._queue.job_file(job))
        return after

    def _start(self, runs: Sequence[QueuedRun]) -> list[QueuedRun]:
        after = list(runs)
        if not in_order(after):
            return after
        capacity = self._capacity()
        after = self._tell_what_never_starts(after, capacity)
        while True:
            waiting = in_order(after)
            sections = {one.state.job: one.run.cluster for one in running(after)}
            first = next_to_start(waiting, sections.values(), self._config, capacity)
            if first is None:
                return after
            after = self._start_with(after, packed_with(first, waiting, self._config.max_packed))

    def _tell_what_never_starts(
        self, runs: Sequence[QueuedRun], capacity: Capacity
    ) -> list[QueuedRun]:
        """It stays queued, since quotas and clusters grow; `status` shows why it waits."""
        after = list(runs)
        for one in in_order(runs):
            quota = self._config.teams.get(one.team)
            why: str | None = f"there is no team {one.team!r} any more"
            if quota is not None:
                why = why_never(one.run.cluster, quota, capacity)
            if why is not None and why != one.state.message:
                after = self._changed(after, one, message=why)
        return after

    def _start_with(
        self, runs: Sequence[QueuedRun], members: Sequence[QueuedRun]
    ) -> list[QueuedRun]:
        after = list(runs)
        first = members[0]
        # A run that was packed before, and is alone now, must not go on in the pack's folder.
        job = first.id if len(members) == 1 else f"pack-{first.id}"
        output = self._queue.job_output(job)
        self._queue.write_job(job, job_spec(members, job, output, self._config.capacity))
        for one in members:
            after = self._changed(
                after,
                one,
                state="running",
                job=job,
                attempt=1,
                started=one.state.started or time.time(),
                message="",
            )
        # Written down first: a job that was submitted and then forgotten would train twice.
        self._jobs.submit(f"{job}-1", self._queue.job_file(job))
        with_others = f", packed with {len(members) - 1} others" if len(members) > 1 else ""
        self._note(f"{first.id} starts{with_others}")
        return after

    def _again(self, runs: Sequence[QueuedRun], one: QueuedRun, why: str) -> list[QueuedRun]:
        """Back into the queue, to be trained alone."""
        return self._changed(
            runs, one, state="queued", job=None, attempt=0, alone=True, message=why
        )

    def _changed(
        self, runs: Sequence[QueuedRun], one: QueuedRun, **changes: Any
    ) -> list[QueuedRun]:
        """The runs after a change of one's state, which is written down and told."""
        state: RunState = one.state.model_copy(update=changes)
        if state.is_over:
            state.finished = time.time()
            self._note(f"{one.id} {state.state}" + (f": {state.message}" if state.message else ""))
        self._queue.write_state(one.id, state)
        if self._metrics is not None:
            self._metrics.changed(one, state)
        return [replace(run, state=state) if run.id == one.id else run for run in runs]

    def _capacity(self) -> Capacity:
        if self._config.capacity is not None:
            return self._config.capacity
        return Capacity.of(self._jobs.resources())

    def _last_error(self, job: str) -> str:
        """The line in which a job told what a user has to mend."""
        lines = self._jobs.logs(job).splitlines()
        return next((one for one in reversed(lines) if one.startswith("error: ")), "")


@contextmanager
def only_dispatcher(queue: QueueFolder) -> Iterator[None]:
    """Hold a queue against other dispatchers.

    Raises:
        ConfigError: another one has it.
        PropulsionError: the folder cannot be written.
    """
    path = queue.folder / ".dispatcher"
    try:
        queue.folder.mkdir(parents=True, exist_ok=True)
        descriptor = acquire_lock(path, wait=False)
    except BlockingIOError as error:
        raise ConfigError(
            f"another dispatcher has the queue {queue.folder}: one is enough, and it can be on any "
            "host"
        ) from error
    except OSError as error:
        raise PropulsionError(
            f"the queue {queue.folder} cannot be used: {error.strerror}"
        ) from error
    try:
        yield
    finally:
        os.close(descriptor)
