"""A real replica measured by the command, and a fleet simulated from its times."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cluster.capacity.times import read_times
from cluster.cli import app

BASE = Path(__file__).parents[3] / "examples" / "tiny_base" / "model"


@pytest.mark.slow
def test_measured_replica_can_be_simulated(tmp_path: Path):
    times, result = tmp_path / "times.json", tmp_path / "result.json"
    arguments = ["--concurrency=1", "--concurrency=4", "--output-tokens=2", "--output-tokens=12"]
    arguments += ["--max-adapters=4", "--max-cpu-adapters=12", "--repeats=2", "--dtype=float32"]
    outcome = CliRunner().invoke(app, ["measure", f"--base={BASE}", f"--out={times}", *arguments])
    assert outcome.exit_code == 0, outcome.exception
    measured = read_times(times)
    one_token = measured.step_seconds(1)
    assert 0 < one_token < measured.step_seconds(32)
    assert measured.boot_seconds > 1
    assert measured.adapter.row_bytes > 0
    assert measured.limits.kv_cache_tokens > 512
    outcome = CliRunner().invoke(
        app, ["simulate", f"--times={times}", "--requests=500", f"--json={result}"]
    )
    assert outcome.exit_code == 0, outcome.exception
    simulated = json.loads(result.read_text())
    assert {"affinity", "round_robin", "two_choices"} == simulated.keys()
    for summary in simulated.values():
        assert summary["ttft_p50_seconds"] > one_token


def test_base_that_is_not_there_is_refused_before_anything_starts(tmp_path: Path):
    outcome = CliRunner().invoke(
        app, ["measure", f"--base={tmp_path / 'none'}", f"--out={tmp_path / 'times.json'}"]
    )
    assert "there is no such folder" in str(outcome.exception)
