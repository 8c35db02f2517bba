"""A sweep with Ray Tune: trials that are behind are stopped, and the best adapter is published."""

import json
import os
from pathlib import Path

import pytest

from adapters import AdapterStore
from cluster.training.sweep import sweep
from propulsion.errors import ConfigError
from tests.cluster.training.ray_cluster import RayCluster, propulsion
from tests.trainer.runs import write_run
from trainer.config import load_run

pytestmark = [pytest.mark.slow, pytest.mark.nightly]


def test_bad_trials_stop_early_and_the_best_adapter_is_published(
    base: Path, cluster: RayCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "RAY_ADDRESS", cluster.gcs_address)
    steps = 16
    run = write_run(
        tmp_path,
        base,
        task={"type": "causal_lm"},
        training={"steps": steps, "batch_size": 8, "eval_every": 2},
        sweep={"training.lr": [0.02, 0.01, 1e-8, 1e-9]},
    )
    told = propulsion("cluster", "sweep", str(run), "--reduction-factor", "2")
    trials = json.loads((tmp_path / "out" / "sweep.json").read_text())["trials"]
    best, *others = trials
    assert best["name"] in ("tiny-lr-0.01", "tiny-lr-0.02")
    assert best["steps"] == steps
    stopped = {one["name"] for one in others if not one["is_finished"] and one["steps"] < steps}
    assert {"tiny-lr-1e-08", "tiny-lr-1e-09"} <= stopped
    assert best["score"] == max(one["score"] for one in trials)
    assert "best: tiny@v1" in told
    (version,) = AdapterStore(tmp_path / "store").list()
    lineage = version.manifest.training_config["lineage"]
    assert lineage == {"sweep": "tiny", "trial": best["name"]}
    assert version.manifest.metrics["test_log_likelihood"] == best["score"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, "nothing to compare"),
        ({"sweep": {"training.lr": [0.1, 0.2]}}, "training.eval_every is needed"),
        ({"sweep": {"base": ["a", "b"]}}, "'base' cannot differ"),
    ],
)
def test_a_sweep_that_cannot_work_is_refused(tmp_path: Path, changes: dict, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        sweep(load_run(write_run(tmp_path, tmp_path, **changes)))
