"""What a run is, wherever its files lie: decides whether a checkpoint is one of this run."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from adapters import base_fingerprint
from trainer.config import JobConfig, RunConfig


def fingerprint_of(base: str) -> str:
    """Fingerprint of a base model given by folder or, once it was loaded, by hub name."""
    if Path(base).is_dir():
        return base_fingerprint(base)
    from huggingface_hub import snapshot_download

    return base_fingerprint(snapshot_download(base, local_files_only=True))


def run_identity(run: RunConfig, fingerprint: str) -> dict[str, Any]:
    """All that decides the trained weights, as JSON.

    Files count by their content, not by their place. What divides a step among ranks and passes,
    when something is written, and what is measured do not count.
    """
    return {
        "base": fingerprint,
        "seed": run.seed,
        "task": run.task.model_dump(mode="json"),
        "dtype": run.deepspeed.dtype,
        "quantization": run.deepspeed.quantization,
        "adapters": {job.name: job_identity(job) for job in run.jobs},
    }


def job_identity(job: JobConfig) -> dict[str, Any]:
    """The part of a run's identity that is one adapter's."""
    exclude: dict[str, Any] = {"name": True, "publish": True}
    chooses = job.training.early_stop is not None
    if not chooses:
        exclude |= {"data": {"test", "test_limit"}, "training": {"eval_every"}}
    settings = job.model_dump(mode="json", exclude=exclude)
    settings["data"]["train"] = content_of(job.data.train)
    if chooses:
        settings["data"]["test"] = content_of(job.data.test)
    return settings


def content_of(path: Path) -> str:
    """What a data file holds, as a hash; of a folder or a hub name, the name."""
    if not path.is_file():
        # A folder of a data set, or the name of one.
        return str(path)
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
