"""What a run is, wherever its files lie: decides whether a checkpoint is one of this run."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from adapters import base_fingerprint
from trainer.config import RunConfig


def fingerprint_of(base: str) -> str:
    """Fingerprint of a base model given by folder or, once it was loaded, by hub name."""
    if Path(base).is_dir():
        return base_fingerprint(base)
    from huggingface_hub import snapshot_download

    return base_fingerprint(snapshot_download(base, local_files_only=True))


def run_identity(run: RunConfig, fingerprint: str) -> dict[str, Any]:
    """All that decides the trained weights, as JSON; published with the adapter.

    Files count by their content, not by their place. What divides a step into micro-batches, when
    something is written, and what is measured do not count.
    """
    settings = run.model_dump(
        mode="json",
        exclude={
            "output_dir": True,
            "publish": True,
            "metrics_port": True,
            "deepspeed": {"stage"},
            "evaluation": True,
            "data": {"test", "test_limit"},
            "training": {
                "micro_batch_size",
                "eval_every",
                "checkpoint_every",
                "keep_checkpoints",
            },
        },
    )
    with run.data.train.open("rb") as file:
        settings["data"]["train"] = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    settings["base"] = fingerprint
    return settings
