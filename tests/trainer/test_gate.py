"""What holds an adapter back from its aliases."""

from pathlib import Path

import pytest

from adapters import AdapterStore
from propulsion.errors import ConfigError
from tests.trainer.runs import save_tiny_base, train_all, write_run
from trainer.config import load_run
from trainer.config.gate import GateSection
from trainer.gate import why_not
from trainer.publishing import publish_adapter
from trainer.result import read_result


@pytest.fixture
def store(tmp_path: Path) -> AdapterStore:
    return AdapterStore(tmp_path / "store")


@pytest.mark.parametrize(
    ("gate", "score", "told"),
    [
        ({"at_least": 0.5}, 0.5, ""),
        ({"at_least": 0.5}, 0.49, "below 0.5"),
        ({"at_least": 0.5}, float("nan"), "below 0.5"),
        ({"above_base": 0.1}, 0.45, ""),
        ({"above_base": 0.1}, 0.35, "not 0.1 above the base's 0.3"),
        ({"at_least": 0.1, "above_base": 0.1}, 0.35, "above the base"),
        ({"no_worse_than": "prod"}, 0.0, ""),
    ],
)
def test_gate(store: AdapterStore, gate: dict, score: float, told: str) -> None:
    why = why_not(GateSection(**gate), "accuracy", score, 0.3, store, "tiny")
    assert told in why
    assert bool(why) == bool(told)


def test_task_without_a_base_score_passes_no_gain(store: AdapterStore) -> None:
    gate = GateSection(above_base=0.0)
    assert "at_least" in why_not(gate, "f1", 1.0, None, store, "tiny")


@pytest.mark.parametrize("gate", [{}, {"at_last": 0.5}])
def test_wrong_gate_is_refused(tmp_path: Path, gate: dict) -> None:
    run = write_run(tmp_path, tmp_path, publish={"store": "store", "gate": gate})
    with pytest.raises(ConfigError, match="gate"):
        load_run(run)


@pytest.mark.slow
def test_alias_stays_where_a_worse_version_would_take_it(tmp_path: Path) -> None:
    base = save_tiny_base(tmp_path / "base")
    store = str(tmp_path / "store")
    gate = {"no_worse_than": "prod"}
    publish = {"store": store, "aliases": ["latest", "prod"], "gate": gate}
    settings = {"publish": publish, "task": {"type": "causal_lm"}}
    good = write_run(tmp_path / "good", base, **settings)
    worse = write_run(tmp_path / "worse", base, **settings, training__lr=1e-9)
    train_all(good, worse)
    first, second = (read_result(tmp_path / name / "out").only for name in ("good", "worse"))
    assert first.score is not None
    assert second.score is not None
    assert second.score < first.score
    assert first.held_back == ""
    assert "tiny@v1, which is tiny@prod" in second.held_back
    assert second.adapter == "tiny@v2"
    assert AdapterStore(store).aliases("tiny") == {"latest": "v1", "prod": "v1"}


@pytest.mark.slow
def test_a_job_that_comes_to_its_end_twice_publishes_once(tmp_path: Path) -> None:
    base = save_tiny_base(tmp_path / "base")
    publish = {"store": str(tmp_path / "store"), "lineage": {"job": "tiny-1"}}
    run = write_run(tmp_path, base, publish=publish)
    train_all(run)
    (job,) = load_run(run).jobs
    folder = tmp_path / "out" / "adapters" / "tiny"
    store = AdapterStore(tmp_path / "store")
    identity = dict(store.resolve("tiny").manifest.training_config)
    again = (folder, identity, "accuracy", {"accuracy": 0.5}, 0.5)
    assert publish_adapter(job, *again) == ("tiny@v1", "")
    assert job.publish is not None
    job.publish.lineage["job"] = "tiny-2"
    assert publish_adapter(job, *again) == ("tiny@v2", "")
