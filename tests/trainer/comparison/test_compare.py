"""`propulsion compare` as a user would give it."""

import inspect
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from propulsion.errors import ConfigError
from tests.trainer.comparison.bases import save_base, write_run_on
from tests.trainer.runs import save_tiny_base, write_run
from trainer.comparison.cli import compare
from trainer.comparison.measured import Measured, read_measured, steps_to_near_best, write_measured
from trainer.comparison.methods import METHODS
from trainer.comparison.plan import check_comparable, comparable_run
from trainer.config import load_run

app = typer.Typer()
app.command()(compare)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_base(tmp_path_factory.mktemp("base"))


def run_compare(*arguments: str) -> Result:
    # Workers are processes of their own; tests share the cores.
    return CliRunner(env={"OMP_NUM_THREADS": "1"}).invoke(app, list(arguments))


def test_all_methods_are_compared_if_none_is_named() -> None:
    assert inspect.signature(compare).parameters["methods"].default.split(",") == [*METHODS]


def test_methods_differ_in_nothing_but_what_they_are(base: Path, tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path, base, training__eval_every=2, deepspeed__stage=3))
    one = comparable_run(run, METHODS["propulsion-multi"], 0.1, 3, tmp_path / "a")
    two = comparable_run(run, METHODS["lora"], 0.2, 3, tmp_path / "b")
    assert one.job.training.model_copy(update={"lr": 0.2}) == two.job.training
    assert (one.job.data, one.job.seed, one.seed) == (two.job.data, two.job.seed, two.seed)
    assert one.deepspeed == two.deepspeed
    assert (one.job.adapter.num_vectors, one.job.adapter.degree) == (4, 3)
    assert one.job.publish is two.job.publish is None


def test_every_run_of_a_comparison_is_evaluated_along_the_way(base: Path, tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path, base, training__steps=50))
    assert comparable_run(run, METHODS["full"], 0.1, 0, tmp_path).job.training.eval_every == 5


def test_run_of_several_adapters_is_refused(base: Path, tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path, base, adapters={"a": {}, "b": {}}))
    with pytest.raises(ConfigError, match=r"has 2 \(a, b\)"):
        check_comparable(run)


def test_numbers_of_another_run_are_not_taken_for_its_own(tmp_path: Path) -> None:
    write_measured(Measured({"lr": 0.1}, score=0.5, curve=((1, 0.5),)), tmp_path)
    kept = read_measured(tmp_path, {"lr": 0.1})
    assert kept is not None
    assert kept.curve == ((1, 0.5),)
    with pytest.raises(ConfigError, match="with other settings or data"):
        read_measured(tmp_path, {"lr": 0.2})
    assert read_measured(tmp_path / "none", {}) is None


@pytest.mark.parametrize(
    ("curve", "step"),
    [
        (((0, 0.9), (5, 0.1), (10, 0.9), (15, 1.0)), 10),
        (((5, -2.0), (10, -1.05), (15, -1.0)), 10),
        (((5, 0.0), (10, 0.0)), 5),
        ((), None),
    ],
)
def test_steps_to_near_best_count_from_the_first_evaluation_after_a_step(
    curve: tuple[tuple[int, float], ...], step: int | None
) -> None:
    assert steps_to_near_best(Measured({}, curve=curve)) == step


@pytest.mark.slow
def test_comparison_goes_on_past_a_failure_and_is_not_done_twice(
    base: Path, tmp_path: Path
) -> None:
    run_file = write_run(tmp_path, base, training__steps=3, training__eval_every=1)
    arguments = [str(run_file), "--methods", "bitfit,propulsion-attn,lora", "--seeds", "0,1"]
    first = run_compare(*arguments)
    assert first.exit_code == 0, first.output
    out = tmp_path / "out-compared"
    tree = json.loads((out / "comparison.json").read_text())
    bitfit, propulsion, lora = tree["methods"]
    assert "trains biases" in bitfit["failure"]
    assert len(propulsion["runs"]) == len(lora["runs"]) == 2
    assert lora["runs"][0]["trainable_parameters"] == 1792
    assert lora["runs"][0]["peak_bytes"] > 0
    assert tree["seeds"] == [0, 1]
    table = (out / "comparison.md").read_text()
    assert "| BitFit | 0.001 | failed: BitFit trains biases, and a llama model has none |" in table
    assert "| ProPETL | not yet run |" in table
    assert all((out / f"{name}.png").stat().st_size < 150_000 for name in PLOTS)
    measured = sorted(out.rglob("measured.json"))
    assert len(measured) == 4
    assert not list(out.rglob("checkpoints"))
    before = [path.stat().st_mtime_ns for path in measured]
    assert run_compare(*arguments).exit_code == 0
    assert [path.stat().st_mtime_ns for path in measured] == before


PLOTS = ("score", "convergence", "efficiency")


@pytest.mark.slow
def test_rates_are_chosen_by_held_out_records(tmp_path: Path) -> None:
    base = save_base("bert", tmp_path / "base")
    run_file = write_run_on("bert", tmp_path / "run", base, training__steps=2)
    result = run_compare(
        *(str(run_file), "--methods", "propulsion-all,lora", "--lrs", "1e-3,1e-2"),
        *("--lr", "lora=0.05", "--hold-out", "0.25", "--out", str(tmp_path / "out")),
    )
    assert result.exit_code == 0, result.output
    tree = json.loads((tmp_path / "out" / "comparison.json").read_text())
    propulsion, lora = tree["methods"]
    assert propulsion["tried"].keys() == {"0.001", "0.01"}
    assert propulsion["tried"][f"{propulsion['lr']:g}"] == max(propulsion["tried"].values())
    assert (lora["lr"], lora["tried"]) == (0.05, {})
    assert tree["held_out"] == {"path": "held-out.tsv", "num_train": 18, "num_records": 6}
    assert propulsion["runs"][0]["num_test"] == 24
    assert "nothing was chosen by the test records" in result.output


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_interrupted_comparison_stops_its_worker_and_continues(base: Path, tmp_path: Path) -> None:
    run_file = write_run(tmp_path, base, training__steps=2000, training__eval_every=2000)
    code = f"import typer; from trainer.comparison.cli import compare; {_CALL}"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(run_file), "--methods", "propulsion-attn"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        # What runs in a shell's background inherits that Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    metrics = tmp_path / "out-compared/runs/propulsion-attn/lr-0.01-seed-0/metrics.jsonl"
    while not (metrics.exists() and '"loss"' in metrics.read_text()):
        assert process.poll() is None, process.stderr and process.stderr.read()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "interrupted; the same command continues" in said
    lines = metrics.read_text().splitlines()
    assert len(lines) < 2000
    assert metrics.read_text().splitlines() == lines


_CALL = "app = typer.Typer(); app.command()(compare); app()"
