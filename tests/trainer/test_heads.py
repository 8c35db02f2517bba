"""Classification heads, one for each adapter of a run."""

from pathlib import Path
from typing import Any

import pytest

from tests.trainer.runs import (
    assert_same_weights,
    final_weights,
    losses,
    propulsion,
    save_tiny_encoder,
    train_all,
    write_run,
)
from trainer.result import read_result

pytestmark = pytest.mark.slow

ADAPTERS: dict[str, dict[str, Any]] = {
    "first": {},
    "second": {"adapter": {"degree": 7}, "training": {"steps": 4, "lr": 0.05}, "seed": 3},
}
TASK = {"type": "classification"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_encoder(tmp_path_factory.mktemp("base"))


def test_heads_are_trained_together_at_every_stage(base: Path, tmp_path: Path) -> None:
    alone = [
        write_run(tmp_path / name, base, adapters={name: one}, task=TASK)
        for name, one in ADAPTERS.items()
    ]
    train_all(*alone)
    together = [
        write_run(
            tmp_path / str(stage),
            base,
            adapters=ADAPTERS,
            task=TASK,
            deepspeed__stage=stage,
            batching__micro_batch_size=1,
        )
        for stage in range(4)
    ]
    train_all(*together, ranks=2)
    for run in together:
        for name in ADAPTERS:
            assert_same_weights(run.parent / "out", tmp_path / name / "out", 1e-5, name)
        first, _ = read_result(run.parent / "out").adapters
        assert first.base_score is None
        assert first.metric == "accuracy"
    names = final_weights(tmp_path / "0" / "out", "first")
    assert {
        "base_model.model.classifier.weight",
        "base_model.model.classifier.bias",
    } <= names.keys()
    # The published adapter brings its head along.
    result = read_result(tmp_path / "first" / "out").only
    done = propulsion("eval", str(alone[0]), "--adapter", "first")
    assert done.returncode == 0, done.stderr
    assert f"accuracy {result.score:.3f}" in done.stdout
    bare = propulsion("eval", str(alone[0]))
    assert bare.returncode == 2
    assert "no head for classification" in bare.stderr


def test_head_of_a_16_bit_base_is_trained_in_32(base: Path, tmp_path: Path) -> None:
    runs = [
        write_run(
            tmp_path / f"{dtype}{stage}",
            base,
            name="tiny",
            task=TASK,
            deepspeed={"stage": stage, "dtype": dtype},
        )
        for dtype, stage in (("fp32", 0), ("bf16", 0), ("bf16", 2), ("bf16", 3), ("fp16", 2))
    ]
    train_all(*runs, ranks=2)
    reference = runs[0].parent / "out"
    for run in runs[1:]:
        weights = final_weights(run.parent / "out")
        assert {str(tensor.dtype) for tensor in weights.values()} == {"torch.float32"}
        # Where a gradient is near 0, its sign, and so AdamW's step, is a matter of rounding.
        assert losses(run.parent / "out") == pytest.approx(losses(reference), abs=0.01)
