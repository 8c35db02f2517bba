"""Trains the variants of the ablations together over one base."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from propulsion.errors import ConfigError
from trainer.comparison.ablations import Variant, variants
from trainer.comparison.processes import run_worker
from trainer.comparison.worker import Order
from trainer.config import AdapterSection, JobConfig, RunConfig
from trainer.result import AdapterResult, read_result

_DONE_FILE = "ablation.json"


@dataclass(frozen=True)
class VariantOutcome:
    """What came of a variant."""

    variant: Variant
    results: tuple[AdapterResult, ...] = ()
    """One for each seed that did not fail."""
    failure: str | None = None
    """Why one failed."""


def ablate(
    run: RunConfig,
    out: Path,
    *,
    names: Sequence[str],
    degrees: Sequence[int],
    seeds: Sequence[int],
    together: int,
    tell: Callable[[str], None],
) -> list[VariantOutcome]:
    """Train each variant, several at a time as adapters of one run.

    Settings that several ablations have in common are trained once. Groups that an earlier call
    has finished are not trained again, and one that was cut off continues.

    Args:
        run: of the run file, with one adapter.
        out: folder of the results.
        names: as `variants` takes them.
        degrees: as `variants` takes them.
        seeds: of the data's order; each makes an adapter of its own of a variant.
        together: most adapters at a time.
        tell: takes lines about how it goes.

    Raises:
        ConfigError: the run has several adapters, or `out` holds ablations of something else.
        DataError: its data cannot be read.
    """
    if len(run.jobs) != 1:
        raise ConfigError(
            f"ablate varies one adapter, but {run.name!r} has {len(run.jobs)}: give a run file of "
            "one"
        )
    job = run.jobs[0]
    wanted = variants(job, _num_layers(run.base), names, degrees)
    failures = {_key(v.adapter): _failure(run, v.adapter) for v in wanted}
    jobs: dict[tuple[str, int], JobConfig] = {}
    for variant in wanted:
        for seed in seeds:
            key = (_key(variant.adapter), seed)
            if key not in jobs and failures[key[0]] is None:
                jobs[key] = _job(job, variant, seed)
    results: dict[str, AdapterResult | str] = {}
    ordered = list(jobs.values())
    for start in range(0, len(ordered), together):
        group = ordered[start : start + together]
        named = f"{group[0].name} to {group[-1].name}"
        tell(f"adapters {start + 1} to {start + len(group)} of {len(ordered)}: {named}")
        results |= _train_group(run, group, out / "runs" / f"group-{start // together + 1}")
    return [_outcome(variant, failures, jobs, results, seeds) for variant in wanted]


def _num_layers(base: str) -> int:
    from transformers import AutoConfig

    try:
        return int(AutoConfig.from_pretrained(base).num_hidden_layers)
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(f"base {base!r}: its number of blocks is not known: {error}") from error


def _key(adapter: AdapterSection) -> str:
    settings = adapter.model_dump(mode="json")
    if settings["num_vectors"] == 1:
        # A single vector is pooled by nothing.
        settings["pooling"] = None
    return json.dumps(settings, sort_keys=True)


def _failure(run: RunConfig, adapter: AdapterSection) -> str | None:
    """Why the base cannot bear an adapter, found out before it would stop all the others."""
    from propulsion.analysis.parameters import count_parameters

    try:
        count_parameters(run.base, **adapter.model_dump())
    except ConfigError as error:
        return str(error)
    return None


def _job(job: JobConfig, variant: Variant, seed: int) -> JobConfig:
    # Each has the same budget, and is evaluated once.
    training = job.training.model_copy(update={"early_stop": None, "eval_every": None})
    return job.model_copy(
        update={
            "name": f"{variant.ablation}-{variant.value}-seed-{seed}",
            "seed": seed,
            "adapter": variant.adapter,
            "training": training,
            "publish": None,
        }
    )


def _train_group(
    run: RunConfig, jobs: list[JobConfig], folder: Path
) -> dict[str, AdapterResult | str]:
    batching = run.batching
    if batching.micro_batch_size is None:
        rows = jobs[0].training.batch_size
        batching = batching.model_copy(update={"micro_batch_size": rows})
    changes = {
        "jobs": jobs,
        "output_dir": folder,
        "batching": batching,
        "metrics_port": None,
        "metrics_targets": None,
        "tensorboard": False,
    }
    whole = run.model_copy(update=changes)
    identity = _identity(whole)
    done = folder / _DONE_FILE
    if done.exists() and json.loads(done.read_text()) != identity:
        raise ConfigError(
            f"{folder} holds ablations with other settings or data: give another folder with "
            "--out, or delete it"
        )
    if not done.exists():
        failure = run_worker(Order(whole, None, identity))
        if failure is not None:
            return {job.name: failure for job in jobs}
        done.write_text(json.dumps(identity) + "\n")
    return {one.name: one for one in read_result(folder).adapters}


def _identity(run: RunConfig) -> Any:
    from trainer.identity import content_of, fingerprint_of, run_identity

    data = run.jobs[0].data
    identity = {
        **run_identity(run, fingerprint_of(run.base)),
        "test": content_of(data.test),
        "test_limit": data.test_limit,
    }
    return json.loads(json.dumps(identity))


def _outcome(
    variant: Variant,
    failures: dict[str, str | None],
    jobs: dict[tuple[str, int], JobConfig],
    results: dict[str, AdapterResult | str],
    seeds: Sequence[int],
) -> VariantOutcome:
    key = _key(variant.adapter)
    if failures[key] is not None:
        return VariantOutcome(variant, failure=failures[key])
    found = [results[jobs[key, seed].name] for seed in seeds]
    said = [one for one in found if isinstance(one, str)]
    good = tuple(one for one in found if isinstance(one, AdapterResult))
    if any(one.score is None for one in good):
        said.append("diverged")
        good = tuple(one for one in good if one.score is not None)
    return VariantOutcome(variant, good, said[0] if said else None)
