"""Checkpoints: adapters, optimiser and position, never the base; whole, atomic, any rank count."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from propulsion.errors import ConfigError, PropulsionError
from trainer import optimizer_state
from trainer.adapted import AdaptedModel
from trainer.optimizer import AdapterAdamW
from trainer.progress import Progress

STATE_FILE = "state.json"
WEIGHTS_FILE = "weights.safetensors"
MOMENTS_FILE = "optimizer.safetensors"


@dataclass(frozen=True)
class Trained:
    """What of a run a checkpoint saves."""

    engine: Any
    optimizer: AdapterAdamW
    adapted: AdaptedModel


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
    trained: Trained, output_dir: Path, progress: Progress, identity: dict[str, Any], keep: int
) -> Path:
    """Write `checkpoints/step-N`; collective over all ranks, rank 0 writes.

    The folder appears whole or not at all, and only then are older ones beyond `keep` removed.
    Data order and every rank's random numbers follow from seed and step, so the step is all their
    state.

    Raises:
        PropulsionError: the disk is full or not writable; nothing half-written is left.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    engine = trained.engine
    parameters = trained.adapted.all_parameters
    weights = optimizer_state.full_weights(engine, parameters)
    moments = optimizer_state.full_moments(engine, parameters)
    steps = optimizer_state.step_counts(engine, trained.optimizer)
    path = output_dir / "checkpoints" / f"step-{progress.step}"
    if engine.global_rank == 0:
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        state = {
            "progress": progress.to_json(),
            "optimizer_steps": steps,
            "identity": identity,
        }
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


def known_adapters(output_dir: Path) -> set[str]:
    """Names of the adapters that a run's latest checkpoint holds; none without one."""
    path = latest_checkpoint(output_dir)
    if path is None:
        return set()
    return set(_read_state(path)["identity"]["adapters"])


def _read_state(path: Path) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((path / STATE_FILE).read_text())
    return state


def load_checkpoint(trained: Trained, path: Path) -> None:
    """Put weights and moments into the engine; collective over all ranks.

    Adapters that the checkpoint does not know, since they joined the run later, stay fresh.
    """
    from safetensors.torch import load_file

    steps: dict[str, int] = _read_state(path)["optimizer_steps"]
    adapters = {n: p for n, p in trained.adapted.parameters.items() if n in steps}
    weights = load_file(path / WEIGHTS_FILE)
    for parameters in adapters.values():
        optimizer_state.load_weights(trained.engine, parameters, weights)
    moments = load_file(path / MOMENTS_FILE)
    optimizer_state.load_moments(trained.engine, trained.optimizer, adapters, moments, steps)


def read_progress(path: Path, identity: dict[str, Any], joined: Collection[str] = ()) -> Progress:
    """How far a checkpoint is.

    Args:
        path: the checkpoint.
        identity: of the run that wants to continue from it.
        joined: adapters that may have joined the run after the checkpoint.

    Raises:
        ConfigError: the checkpoint is of a run with other settings.
    """
    state = _read_state(path)
    known = state["identity"]["adapters"]
    adapters = {
        name: one
        for name, one in identity["adapters"].items()
        if name in known or name not in joined
    }
    changed = _differences(state["identity"], {**identity, "adapters": adapters})
    if changed:
        raise ConfigError(
            f"{path} belongs to a run with other settings ({', '.join(changed)}): "
            "use another output_dir, or start anew with --overwrite"
        )
    return Progress.from_json(state["progress"])


def _differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            change
            for key in sorted({*old, *new})
            for change in _differences(old.get(key), new.get(key), f"{prefix}{key}.")
        ]
    return [] if old == new else [prefix.rstrip(".")]
