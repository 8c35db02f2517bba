"""What one training run of a comparison has given."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from propulsion.errors import ConfigError

MEASURED_FILE = "measured.json"


@dataclass(frozen=True)
class Measured:
    """One run of one method, written to `measured.json` in its folder."""

    identity: dict[str, Any]
    """What it was a run of."""
    metric: str = ""
    score: float | None = None
    scores: dict[str, float] | None = None
    base_score: float | None = None
    trivial_score: float | None = None
    num_test: int = 0
    base_parameters: int = 0
    trainable_parameters: int = 0
    curve: tuple[tuple[int, float], ...] = ()
    """Step → score, at each evaluation."""
    train_seconds: float = 0.0
    """In steps, evaluations aside."""
    step_seconds: float = 0.0
    """Of the median step, which what else the machine does disturbs least."""
    cpu_step_seconds: float | None = None
    """Of the processor in the median step, all threads; None on a GPU."""
    wall_seconds: float = 0.0
    """Of loading, training and evaluating."""
    peak_bytes: int = 0
    memory_kind: str = ""
    """`cuda`: allocated on the GPU; `rss`: resident set above that after the imports."""


def write_measured(measured: Measured, folder: Path) -> None:
    """Write `measured.json`, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{MEASURED_FILE}.{os.getpid()}"
    temporary.write_text(json.dumps(asdict(measured), indent=1) + "\n")
    temporary.rename(folder / MEASURED_FILE)


def read_measured(folder: Path, identity: dict[str, Any]) -> Measured | None:
    """What a run has given that came to its end; None if there is none.

    Raises:
        ConfigError: the folder holds a run of something else.
    """
    path = folder / MEASURED_FILE
    if not path.exists():
        return None
    tree = json.loads(path.read_text())
    if tree["identity"] != json.loads(json.dumps(identity)):
        raise ConfigError(
            f"{folder} holds a run with other settings or data: give another folder with --out, or "
            "delete it"
        )
    tree["curve"] = tuple((step, score) for step, score in tree["curve"])
    return Measured(**tree)


def steps_to_near_best(measured: Measured) -> int | None:
    """The first evaluation within a tenth of the best score of the run itself.

    The tenth is one of the best score's size, so that it also means something below zero.
    """
    curve = [(step, score) for step, score in measured.curve if step > 0]
    if not curve:
        return None
    best = max(score for _, score in curve)
    return next(step for step, score in curve if score >= best - 0.1 * abs(best))
