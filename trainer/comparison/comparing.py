"""Trains the methods one after the other, and writes what came of them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.comparison.holdout import Holdout, hold_out
from trainer.comparison.measured import Measured, read_measured
from trainer.comparison.methods import Method, default_rate
from trainer.comparison.plan import check_comparable, comparable_run
from trainer.comparison.processes import run_worker
from trainer.comparison.worker import Order
from trainer.config import RunConfig


@dataclass(frozen=True)
class Request:
    """What is to be compared."""

    run: RunConfig
    methods: Sequence[Method]
    seeds: Sequence[int]
    out: Path
    rates: Sequence[float] = ()
    """Rates of which each method takes the one that is best on held-out records."""
    own_rates: Mapping[str, float] = field(default_factory=dict)
    """Method → the rate that is given for it, which is then not chosen."""
    holdout_share: float = 0.1
    """Of the training records, if rates are chosen."""


@dataclass
class Outcome:
    """What came of a method."""

    method: Method
    lr: float
    tried: dict[float, float | None] = field(default_factory=dict)
    """Rate → score on the held-out records; None where it failed."""
    runs: list[Measured] = field(default_factory=list)
    """One for each seed."""
    failure: str | None = None
    """Why there are none, or not all."""

    @property
    def score(self) -> float | None:
        """Mean over the seeds."""
        scores = [run.score for run in self.runs if run.score is not None]
        return statistics.fmean(scores) if scores and self.failure is None else None


@dataclass
class Comparison:
    """What came of all methods so far."""

    request: Request
    holdout: Holdout | None
    outcomes: list[Outcome]


class _Failed(Exception):
    pass


def compare(
    request: Request,
    tell: Callable[[str], None],
    after_each: Callable[[Comparison], None],
) -> Comparison:
    """Train each method in processes of its own.

    What an earlier call has brought to its end is not done again. A method that fails does not
    keep the others from being trained.

    Args:
        request: what to compare.
        tell: takes lines about how it goes.
        after_each: takes what there is, after each method.

    Raises:
        ConfigError: the run cannot be compared, or `out` holds a comparison of something else.
        DataError: its data cannot be read.
    """
    from trainer.identity import fingerprint_of
    from trainer.job_data import read_job

    run = request.run
    check_comparable(run)
    job = run.jobs[0]
    holdout = None
    if request.rates:
        holdout = hold_out(job, run.task.type, request.holdout_share, request.out)
    else:
        read_job(job, run.task.type)
    comparison = Comparison(request, holdout, [])
    bench = _Bench(request, holdout, fingerprint_of(run.base), tell)
    for method in request.methods:
        outcome = Outcome(method, request.own_rates.get(method.name, default_rate(method, job)))
        comparison.outcomes.append(outcome)
        try:
            if request.rates and method.name not in request.own_rates:
                bench.choose_rate(outcome)
            for seed in request.seeds:
                outcome.runs.append(bench.measure(method, outcome.lr, seed))
        except _Failed as failure:
            outcome.failure = str(failure)
            tell(f"{method.name}: {failure}")
        after_each(comparison)
    return comparison


class _Bench:
    def __init__(
        self,
        request: Request,
        holdout: Holdout | None,
        fingerprint: str,
        tell: Callable[[str], None],
    ) -> None:
        self._request = request
        self._holdout = holdout
        self._fingerprint = fingerprint
        self._tell = tell

    def choose_rate(self, outcome: Outcome) -> None:
        """Set the rate that is best on the held-out records."""
        failure = ""
        for lr in self._request.rates:
            try:
                measured = self.measure(outcome.method, lr, self._request.seeds[0], chooses=True)
                outcome.tried[lr] = measured.score
            except _Failed as failed:
                outcome.tried[lr] = None
                failure = str(failed)
        scored = {lr: score for lr, score in outcome.tried.items() if score is not None}
        if not scored:
            raise _Failed(failure)
        outcome.lr = max(scored, key=scored.__getitem__)

    def measure(self, method: Method, lr: float, seed: int, *, chooses: bool = False) -> Measured:
        """The numbers of one run, which is made if it has not been."""
        request = self._request
        name = f"lr-{lr:g}-seed-{seed}{'-held-out' if chooses else ''}"
        folder = request.out / "runs" / method.name / name
        run = comparable_run(request.run, method, lr, seed, folder, self._holdout, chooses=chooses)
        identity = self._identity(run, method)
        measured = read_measured(folder, identity)
        if measured is None:
            where = "held-out" if chooses else "test"
            self._tell(f"{method.name}: rate {lr:g}, seed {seed}, {where} records")
            failure = run_worker(Order(run, method.name, identity))
            if failure is not None:
                raise _Failed(failure)
            measured = read_measured(folder, identity)
            assert measured is not None
        return measured

    def _identity(self, run: RunConfig, method: Method) -> dict[str, Any]:
        from trainer.identity import content_of, run_identity

        job = run.jobs[0]
        return {
            **run_identity(run, self._fingerprint),
            "method": method.name,
            "test": content_of(job.data.test),
            "test_limit": job.data.test_limit,
            "eval_every": job.training.eval_every,
        }
