"""The GPU benchmark as a whole: its parts, its goals, and the time that it keeps to."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu import bandwidth, resident
from benchmarks.gpu.budget import Budget
from benchmarks.gpu.decoder import Decoder
from benchmarks.gpu.decoding import measure
from benchmarks.gpu.shapes import BLOOMZ_7B1, GPTJ_6B, LLAMA_7B
from benchmarks.gpu.tables import goals
from serving.worker.bank import Bank

NO_ROWS: dict[str, Any] = {"bandwidth": [], "decoding": [], "bank": [], "engine": []}


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds

    def work(self, seconds: float) -> str:
        self.seconds += seconds
        return "done"


def spread(median: float) -> dict[str, float]:
    return {"median": median, "low": 0.0, "high": 9.0}


def test_work_that_would_overrun_is_left_out_and_said_to_be() -> None:
    clock = Clock()
    budget = Budget(10, clock)

    def run(name: str, seconds: float, kind: str = "a") -> str | None:
        return budget.run(name, lambda: clock.work(seconds), kind=kind, expected_seconds=1)

    assert run("first", 6) == "done"
    # It is expected to take as long as the first of its kind did.
    assert run("second", 1) is None
    assert budget.left_out == {
        "second": "skipped: 4 s of the budget were left, and it may take 6 s"
    }
    assert run("another", 1, kind="b") == "done"
    assert (budget.seconds_spent, budget.seconds_left) == (7, 3)


def test_work_that_fails_leaves_the_rest() -> None:
    budget = Budget(10, Clock())

    def fail() -> None:
        raise ValueError("no such kernel")

    assert budget.run("one", fail, kind="a", expected_seconds=1) is None
    assert budget.run("two", lambda: 2, kind="a", expected_seconds=1) == 2
    assert budget.left_out == {"one": "failed: ValueError: no such kernel"}


def test_a_size_without_time_still_has_its_rows() -> None:
    decoder = Decoder(LLAMA_7B.tiny(), "cpu", torch.float32)
    rows = measure(decoder, [(4, 4)], 2, 2, 1.0, Budget(0))
    assert len(rows) == 8
    assert {row["seconds"] for row in rows} == {"not measured"}
    assert all(row["note"].startswith("skipped: 0 s of the budget") for row in rows)


def test_each_model_is_measured_on_the_kernels_it_runs() -> None:
    kernels_of = {
        shape.model: [row["kernel"] for row in bandwidth.measure(shape.tiny(), "cpu", 4, 2, 2)][1:]
        for shape in (LLAMA_7B, BLOOMZ_7B1, GPTJ_6B)
    }
    training = "scale_by_slot, gradients"
    assert kernels_of == {
        "LLaMA-7B": ["gather_scale", "scale_rope", "scale_act_mul", "scale_add_norm", training],
        "BLOOMz-7B1": ["gather_scale", "scale_gelu", "scale_add_norm", training],
        "GPT-J-6B": ["gather_scale", "scale_rope", "scale_gelu", "scale_add_norm", training],
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_bank_is_counted_filled_and_read(dtype: torch.dtype) -> None:
    shape = LLAMA_7B.tiny()
    row = resident.measure(shape, 20, "cpu", dtype, max_num_tokens=16)
    assert row["rows"] == 20 + 20 + 1
    assert row["bytes_per_adapter"] == shape.layers * 3 * shape.hidden * dtype.itemsize
    assert row["bytes"] == row["rows"] * row["bytes_per_adapter"] + 2 * 16 * 4
    assert row["is_last_right"]


def test_a_bank_that_loses_its_last_row_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    write = Bank.write

    def losing(self: Bank, slot: int, row: torch.Tensor) -> None:
        if slot < 20:
            write(self, slot, row)

    monkeypatch.setattr(Bank, "write", losing)
    row = resident.measure(LLAMA_7B.tiny(), 20, "cpu", torch.bfloat16, max_num_tokens=16)
    assert not row["is_last_right"]


def test_goals_are_met_or_not_by_the_median() -> None:
    step = {"model": "m", "layers": 32, "phase": "decode"}
    step["variant"] = "propulsion fused, 256 adapters"
    kernel = {"model": "m", "kernel": "scale_rope"}
    result = {
        "bandwidth": [
            {**kernel, "tokens": 64, "share_of_copy": spread(0.1)},
            {**kernel, "tokens": 8192, "share_of_copy": spread(0.86)},
        ],
        "decoding": [
            {**step, "tokens": 1, "ratio_to_base": spread(1.015)},
            {**step, "tokens": 8, "ratio_to_base": spread(2.0)},
            {**step, "tokens": 64, "ratio_to_base": spread(1.015)},
        ],
        "bank": [{"dtype": "bfloat16", "adapters": 10_000, "bytes": 2**33, "is_last_right": True}],
        "engine": [
            {"variant": "256 adapters", "is_judged": True, "ratio_to_base": spread(0.98)},
            {"variant": "LoRA", "is_judged": False, "ratio_to_base": spread(0.5)},
        ],
    }
    assert [goal["is_met"] for goal in goals(result)] == [True, True, False, True, False]


@pytest.mark.parametrize(
    ("row", "is_met"),
    [
        ({"adapters": 10_000, "bytes": 2**33 + 1, "is_last_right": True}, False),
        ({"adapters": 10_000, "bytes": 2**33, "is_last_right": False}, False),
        ({"adapters": 20, "bytes": 2**20, "is_last_right": True}, None),
    ],
    ids=["too large", "wrong", "of another size"],
)
def test_a_bank_meets_its_goal_whole_and_right(row: dict[str, Any], is_met: bool | None) -> None:
    (goal,) = goals({**NO_ROWS, "bank": [{"dtype": "bfloat16", **row}]})
    assert goal["is_met"] is is_met


@pytest.mark.slow
def test_the_benchmark_needs_torch_and_this_repository_alone(tmp_path: Path) -> None:
    absent = ["peft", "transformers", "deepspeed", "ray", "vllm", "typer", "rich", "pydantic"]
    code = (
        "import runpy, sys\n"
        f"sys.modules.update(dict.fromkeys({absent}))\n"
        f"sys.argv = ['gpu', '--out', {str(tmp_path)!r}, '--device', 'cpu', '--tiny']\n"
        "runpy.run_module('benchmarks.gpu', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "gpu.json").read_text())
    assert list(result["left_out"]) == ["engines"]
    assert all(row["is_right"] for row in result["correctness"])
    assert max(result["fused_difference"].values()) < 0.05
    models = {"LLaMA-7B", "LLaMA-13B", "BLOOMz-7B1", "GPT-J-6B"}
    assert result["fused_difference"].keys() == models
    for rows, value in (("decoding", "seconds"), ("bandwidth", "bytes_per_second")):
        assert {row[value] for row in result[rows]} == {"not measured"}
        assert {row["model"] for row in result[rows]} == models
    variants = [row["variant"] for row in result["decoding"] if row["model"] == "LLaMA-7B"]
    assert len(set(variants)) == 8
    assert all(row["is_last_right"] for row in result["bank"])
    assert {goal["is_met"] for goal in result["goals"]} == {None}
    named = " ".join(goal["goal"] for goal in result["goals"])
    for goal in ("a step of GPT-J-6B (2 layers) at batch 64", "10,000 attention", "vLLM's tokens"):
        assert goal in named
    assert "not measured" in (tmp_path / "gpu.md").read_text()


@pytest.mark.slow
def test_parts_and_time_can_be_chosen(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.gpu", "--out", str(tmp_path), "--device", "cpu"),
            *("--tiny", "--minutes", "0", "--parts", "decoding", "bank"),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    left_out = json.loads((tmp_path / "gpu.json").read_text())["left_out"]
    assert left_out["engine"] == left_out["correctness"] == "not asked for"
    assert left_out["weights of LLaMA-7B"].startswith("skipped: 0 s")
    assert left_out["bank of torch.bfloat16"].startswith("skipped: 0 s")
