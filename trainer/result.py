"""What a finished run has reached."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

RESULT_FILE = "result.json"


@dataclass(frozen=True)
class AdapterResult:
    """What one adapter has reached on its test records."""

    name: str
    adapter: str
    """Its reference in the store, or its folder if it was not published."""
    status: str
    """`finished`, `stopped` early, or `diverged`."""
    metric: str
    """The score that tells the better adapter."""
    score: float | None
    """None if it diverged."""
    base_score: float | None
    """Of the bare base; None where a head has to be trained first."""
    trivial_score: float | None
    """Of always giving the most frequent answer; None where that says nothing."""
    scores: dict[str, float]
    num_test: int
    trainable_parameters: int
    steps: int
    best_step: int | None
    """The step whose weights were kept."""
    held_back: str = ""
    """Why it did not pass its gate, so that no alias moved to it; empty if one did."""


@dataclass(frozen=True)
class RunResult:
    """Written to `result.json`."""

    name: str
    adapters: tuple[AdapterResult, ...]
    steps: int
    train_seconds: float
    """Spent in steps, evaluations and checkpoints aside."""

    @property
    def only(self) -> AdapterResult:
        """The adapter of a run that has but one."""
        (one,) = self.adapters
        return one


def write_result(result: RunResult, output_dir: Path) -> None:
    """Write `result.json`, whole or not at all."""
    temporary = output_dir / f".{RESULT_FILE}"
    temporary.write_text(json.dumps(asdict(result), indent=1) + "\n")
    temporary.rename(output_dir / RESULT_FILE)


def read_result(output_dir: Path) -> RunResult:
    """Read `result.json`."""
    tree = json.loads((output_dir / RESULT_FILE).read_text())
    adapters = tuple(AdapterResult(**one) for one in tree.pop("adapters"))
    return RunResult(**tree, adapters=adapters)
