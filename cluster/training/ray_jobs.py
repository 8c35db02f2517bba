"""The Ray Jobs API, as far as training needs it."""

from __future__ import annotations

import asyncio
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from propulsion.errors import ConfigError, PropulsionError

JobState = Literal["pending", "running", "succeeded", "failed", "stopped", "lost"]
"""`lost`: the head no longer knows it, or it ended without an exit code, as with its node."""

_NO_AGENT = "No available agent"
_AGENT_SECONDS = 60.0
_MAX_NODES = 10_000
DEFAULT_ADDRESS = "http://127.0.0.1:8265"


class HeadUnreachableError(PropulsionError):
    """Ray's head does not answer; the same call may succeed later."""


class UnknownJobError(PropulsionError):
    """Ray has no job of that id."""


@dataclass(frozen=True)
class JobInfo:
    """Where a job stands."""

    id: str
    state: JobState
    message: str = ""


class RayJobs:
    """Submits jobs to Ray's head and watches them.

    Args:
        address: of the head's dashboard, as `http://head:8265`.
        python: command of the Python that the head runs, which has this package.

    Every method raises HeadUnreachableError while the head does not answer.
    """

    def __init__(self, address: str, python: str) -> None:
        if not address.startswith(("http://", "https://")):
            raise ConfigError(
                f"--address {address!r}: give the URL of the Ray dashboard, as {DEFAULT_ADDRESS}"
            )
        self.address = address
        self._python = python
        self._connection: Any = None

    def submit(self, job_id: str, spec: Path) -> None:
        """Start a job that trains what a file describes; one of that id must not exist."""
        entrypoint = shlex.join([self._python, "-m", "cluster.training.job", str(spec)])
        deadline = time.monotonic() + _AGENT_SECONDS
        while True:
            try:
                self._call(
                    "submit_job",
                    entrypoint=entrypoint,
                    submission_id=job_id,
                    metadata={"propulsion": str(spec)},
                )
                return
            except HeadUnreachableError as error:
                # The dashboard of a head that starts answers before its agent takes jobs.
                if _NO_AGENT not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.5)

    def require_head(self) -> None:
        """Return if the head answers."""
        self._call("get_version")

    def info(self, job_id: str) -> JobInfo:
        """Where a job stands; `lost` if Ray does not know it."""
        try:
            return _info(job_id, self._call("get_job_info", job_id))
        except UnknownJobError:
            return JobInfo(job_id, "lost", "Ray's head does not know it")

    def jobs(self) -> list[JobInfo]:
        """All jobs that were submitted by this package, the first one first."""
        details = [one for one in self._call("list_jobs") if "propulsion" in (one.metadata or {})]
        details.sort(key=lambda one: one.start_time or 0)
        return [_info(one.submission_id, one) for one in details]

    def stop(self, job_id: str) -> bool:
        """Ask a job to end; False if it has ended. Raises UnknownJobError."""
        return bool(self._call("stop_job", job_id))

    def logs(self, job_id: str) -> str:
        """What a job has printed so far. Raises UnknownJobError."""
        return str(self._call("get_job_logs", job_id))

    def follow(self, job_id: str) -> Iterator[str]:
        """What a job prints, piece by piece, until it ends. Raises UnknownJobError."""
        import aiohttp

        self._call("get_job_info", job_id)
        pieces = self._client().tail_job_logs(job_id)
        with asyncio.Runner() as runner:
            while True:
                try:
                    yield runner.run(anext(pieces))
                except StopAsyncIteration:
                    return
                except (RuntimeError, aiohttp.ClientError) as error:
                    raise HeadUnreachableError(f"{self.address}: {error}") from error

    def resources(self) -> dict[str, float]:
        """CPUs and GPUs of the nodes that are alive."""
        import warnings

        from ray.util.state import list_nodes
        from ray.util.state.exception import RayStateApiException

        self.require_head()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                # Nodes that have died are filtered, and Ray takes them for missing ones.
                nodes = list_nodes(
                    address=self.address,
                    filters=[("state", "=", "ALIVE")],
                    limit=_MAX_NODES,
                    timeout=30,
                    raise_on_missing_output=False,
                )
        except (RayStateApiException, OSError, RuntimeError) as error:
            raise HeadUnreachableError(
                f"the Ray head at {self.address} does not tell its nodes: {error}"
            ) from error
        totals: dict[str, float] = {}
        for node in nodes:
            for kind in ("CPU", "GPU"):
                totals[kind] = totals.get(kind, 0.0) + (node.resources_total or {}).get(kind, 0.0)
        return totals

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        import requests
        from ray.exceptions import AuthenticationError

        try:
            return getattr(self._client(), method)(*args, **kwargs)
        except AuthenticationError as error:
            self._connection = None
            raise HeadUnreachableError(
                f"the Ray head at {self.address} wants its token: set RAY_AUTH_MODE=token, and "
                "RAY_AUTH_TOKEN unless the token is in ~/.ray/auth_token (ray get-auth-token)"
            ) from error
        except requests.exceptions.RequestException as error:
            self._connection = None
            raise self._unreachable() from error
        except RuntimeError as error:
            if "status code 404" in str(error):
                raise UnknownJobError(f"{self.address} has no job {args[0]!r}") from error
            raise HeadUnreachableError(f"{self.address}: {error}") from error

    def _client(self) -> Any:
        if self._connection is None:
            from ray.job_submission import JobSubmissionClient

            try:
                self._connection = JobSubmissionClient(self.address)
            except (ConnectionError, RuntimeError) as error:
                raise self._unreachable() from error
        return self._connection

    def _unreachable(self) -> HeadUnreachableError:
        return HeadUnreachableError(
            f"no Ray head answers at {self.address}: start one (ray start --head), or give the URL "
            "of its dashboard (--address)"
        )


def _info(job_id: str, details: Any) -> JobInfo:
    state: JobState = details.status.value.lower()
    if state == "failed" and details.driver_exit_code is None:
        state = "lost"
    return JobInfo(job_id, state, details.message or "")
