"""Adapters that are trained together do not notice each other."""

from pathlib import Path
from typing import Any

import pytest

from tests.trainer.runs import (
    assert_same_weights,
    losses,
    metric_lines,
    propulsion,
    save_tiny_base,
    train,
    train_all,
    write_run,
)
from trainer.result import read_result

pytestmark = pytest.mark.slow

ADAPTERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "other": {
        "adapter": {"degree": 15, "preset": "attn"},
        "training": {"lr": 0.003, "steps": 4, "batch_size": 4},
        "seed": 3,
    },
    "pooled.max": {
        "adapter": {"num_vectors": 3, "pooling": "max"},
        "training": {"steps": 8, "clip": 0.1, "weight_decay": 0.1},
    },
}
"""Adapters that differ in everything that adapters of one run can differ in."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def alone(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each adapter trained by itself, in a folder of its name."""
    folder = tmp_path_factory.mktemp("alone")
    train_all(*[write_run(folder / n, base, adapters={n: one}) for n, one in ADAPTERS.items()])
    return folder


def assert_as_alone(out: Path, alone: Path, tolerance: float = 1e-6) -> None:
    for name in ADAPTERS:
        assert_same_weights(out, alone / name / "out", tolerance, name)


def test_every_stage_gives_the_weights_of_each_adapter_alone(
    base: Path, alone: Path, tmp_path: Path
) -> None:
    runs = {
        stage: write_run(
            tmp_path / str(stage),
            base,
            adapters=ADAPTERS,
            deepspeed__stage=stage,
            batching__micro_batch_size=3,
        )
        for stage in range(4)
    }
    train_all(*runs.values(), ranks=2)
    for stage, run in runs.items():
        out = run.parent / "out"
        assert_as_alone(out, alone)
        for name in ADAPTERS:
            assert losses(out, name) == pytest.approx(
                losses(alone / name / "out", name), abs=1e-5
            ), stage
        result = read_result(out)
        assert [one.name for one in result.adapters] == list(ADAPTERS)
        assert [one.steps for one in result.adapters] == [6, 4, 8]
        assert result.steps == 8


def test_what_saves_memory_changes_nothing(base: Path, alone: Path, tmp_path: Path) -> None:
    settings: list[dict[str, Any]] = [
        {"deepspeed": {"stage": 2, "gradient_checkpointing": True}},
        {"deepspeed": {"stage": 3, "gradient_checkpointing": True}},
        {"deepspeed": {"stage": 1, "offload_optimizer": "cpu"}},
        {"deepspeed": {"stage": 2, "offload_optimizer": "cpu"}},
        {"deepspeed": {"stage": 3, "offload_optimizer": "cpu", "offload_param": "cpu"}},
        {"batching": {"packing": True}},
        {"batching": {"packing": True, "micro_batch_size": 2}, "deepspeed": {"stage": 3}},
    ]
    runs = [
        write_run(tmp_path / str(number), base, adapters=ADAPTERS, **one)
        for number, one in enumerate(settings)
    ]
    train_all(*runs, ranks=2)
    for run in runs:
        assert_as_alone(run.parent / "out", alone, 1e-5)


def test_cut_off_run_continues_for_all_its_adapters(
    base: Path, alone: Path, tmp_path: Path
) -> None:
    # `other` has left at step 4, and stays published once.
    run = write_run(tmp_path, base, adapters=ADAPTERS, checkpoints__every=5)
    partial = write_run(
        tmp_path / "partial", base, adapters=ADAPTERS, checkpoints__every=5, output_dir="../out"
    )
    train_all(partial)
    checkpoints = tmp_path / "out" / "checkpoints"
    assert sorted(path.name for path in checkpoints.iterdir()) == ["step-6", "step-8"]
    assert_as_alone(tmp_path / "out", alone)
    assert train(run).returncode == 0


def test_adapter_whose_loss_is_not_finite_leaves_and_the_others_go_on(
    base: Path, alone: Path, tmp_path: Path
) -> None:
    # (1 + δ)^k overflows after the first step.
    wild = {"adapter": {"degree": 99}, "training": {"lr": 1e3, "warmup_ratio": 0.0, "clip": None}}
    offload = {"offload_optimizer": "cpu"}
    runs = [
        write_run(
            tmp_path / str(number), base, adapters={"wild": wild, **ADAPTERS}, deepspeed=deepspeed
        )
        for number, deepspeed in enumerate(
            [
                {"stage": 0},
                {"stage": 2},
                {"stage": 3},
                {"stage": 2, **offload},
                {"stage": 3, **offload},
            ]
        )
    ]
    train_all(*runs, ranks=2)
    for run in runs:
        out = run.parent / "out"
        assert_as_alone(out, alone)
        assert [one.status for one in read_result(out).adapters] == ["diverged", *["finished"] * 3]
        assert not (out / "adapters" / "wild").exists()


def test_adapter_stops_early_and_keeps_its_best_weights(base: Path, tmp_path: Path) -> None:
    stopping = {
        "training": {"steps": 40, "lr": 0.5, "eval_every": 1, "early_stop": {"patience": 2}}
    }
    run = write_run(tmp_path, base, adapters={"stopping": stopping, "plain": {}})
    train_all(run)
    stopped, plain = read_result(tmp_path / "out").adapters
    assert (stopped.status, plain.status) == ("stopped", "finished")
    assert stopped.best_step is not None
    assert stopped.steps == stopped.best_step + 2
    scores = {
        line["step"]: line["scores"]["accuracy"]
        for line in metric_lines(tmp_path / "out")
        if line.get("adapter") == "stopping" and "scores" in line
    }
    assert stopped.score == max(scores[step] for step in range(1, stopped.steps + 1))


def test_adapter_joins_a_run_that_has_ended(base: Path, alone: Path, tmp_path: Path) -> None:
    adapters = {name: ADAPTERS[name] for name in ("plain", "other")}
    run = write_run(tmp_path, base, adapters=adapters, deepspeed__stage=3)
    assert train(run).returncode == 0
    joining = write_run(tmp_path / "joining", base, adapters={"pooled.max": ADAPTERS["pooled.max"]})
    job = tmp_path / "joining" / "job.yaml"
    job.write_text(job_of(joining))
    queued = propulsion("queue", str(run), str(job))
    assert queued.returncode == 0, queued.stderr
    again = propulsion("queue", str(run), str(job))
    assert again.returncode == 2
    assert "has an adapter 'pooled.max' already" in again.stderr
    finished = train(run, ranks=2)
    assert finished.returncode == 0, finished.stderr
    assert_as_alone(tmp_path / "out", alone)
    assert [one.name for one in read_result(tmp_path / "out").adapters] == list(ADAPTERS)


def job_of(run_file: Path) -> str:
    """The only adapter of a run file, as a file of its own."""
    from trainer.config import load_run

    return load_run(run_file).job.model_dump_json()


def test_offloading_to_nvme_changes_nothing(base: Path, alone: Path, tmp_path: Path) -> None:
    from deepspeed.ops.op_builder import AsyncIOBuilder

    if not AsyncIOBuilder().is_compatible(verbose=False):
        pytest.skip("DeepSpeed's async_io needs libaio-dev")
    runs = [
        write_run(
            tmp_path / str(number),
            base,
            adapters=ADAPTERS,
            deepspeed={"stage": 3, "nvme_path": "nvme", **one},
        )
        for number, one in enumerate(
            [
                {"offload_optimizer": "nvme"},
                {"offload_optimizer": "nvme", "offload_param": "nvme"},
                {"offload_optimizer": "cpu", "offload_param": "nvme"},
            ]
        )
    ]
    train_all(*runs)
    for run in runs:
        assert_as_alone(run.parent / "out", alone, 1e-5)
