"""Checkpoints: adapter, optimiser and position, never the base; whole, atomic, any rank count."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from propulsion.errors import ConfigError, PropulsionError
from trainer import optimizer_state

STATE_FILE = "state.json"
WEIGHTS_FILE = "weights.safetensors"
MOMENTS_FILE = "optimizer.safetensors"


@dataclass(frozen=True)
class Progress:
    """Where a run stands: steps done, tokens seen, results of evaluations so far."""

    step: int = 0
    tokens: int = 0
    base_accuracy: float | None = None


def latest_checkpoint(output_dir: Path) -> Path | None:
    """The newest whole checkpoint of a run, or None."""
    found = sorted(_steps(output_dir).items())
    return found[-1][1] if found else None


def _steps(output_dir: Path) -> dict[int, Path]:
    folder = output_dir / "checkpoints"
    if not folder.is_dir():
        return {}
    matches = ((re.fullmatch(r"step-(\d+)", path.name), path) for path in folder.iterdir())
    return {int(match.group(1)): path for match, path in matches if match}


def save_checkpoint(
    engine: Any, output_dir: Path, progress: Progress, identity: dict[str, Any], keep: int
) -> Path:
    """Write `checkpoints/step-N`; collective over all ranks, rank 0 writes.

    The folder appears whole or not at all, and only then are older ones beyond `keep` removed.
    Data order and initialisation follow from the seed, so the step is all their state.

    Raises:
        PropulsionError: the disk is full or not writable; nothing half-written is left.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    weights = optimizer_state.full_weights(engine)
    moments = optimizer_state.full_moments(engine)
    path = output_dir / "checkpoints" / f"step-{progress.step}"
    if engine.global_rank == 0:
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        state = {"progress": progress.__dict__, "identity": identity}
        try:
            temporary.mkdir(parents=True)
            save_file(weights, temporary / WEIGHTS_FILE)
            save_file(moments, temporary / MOMENTS_FILE)
            (temporary / STATE_FILE).write_text(json.dumps(state, indent=1) + "\n")
            shutil.rmtree(path, ignore_errors=True)
            temporary.rename(path)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise PropulsionError(
                f"checkpoint {path} cannot be written ({error}): make room; the same command then "
                "continues from the checkpoint before"
            ) from error
        for _, old in sorted(_steps(output_dir).items())[:-keep]:
            shutil.rmtree(old)
    torch.distributed.barrier()
    return path


def load_checkpoint(engine: Any, path: Path, identity: dict[str, Any]) -> Progress:
    """Put a checkpoint into the engine; collective over all ranks. Raises as `read_progress`."""
    from safetensors.torch import load_file

    progress = read_progress(path, identity)
    optimizer_state.load_weights(engine, load_file(path / WEIGHTS_FILE))
    optimizer_state.load_moments(engine, load_file(path / MOMENTS_FILE), progress.step)
    return progress


def read_progress(path: Path, identity: dict[str, Any]) -> Progress:
    """How far a checkpoint is.

    Raises:
        ConfigError: the checkpoint is of a run with other settings.
    """
    state = json.loads((path / STATE_FILE).read_text())
    changed = _differences(state["identity"], identity)
    if changed:
        raise ConfigError(
            f"{path} belongs to a run with other settings ({', '.join(changed)}): "
            "use another output_dir, or start anew with --overwrite"
        )
    return Progress(**state["progress"])


def _differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            change
            for key in sorted({*old, *new})
            for change in _differences(old.get(key), new.get(key), f"{prefix}{key}.")
        ]
    return [] if old == new else [prefix.rstrip(".")]
