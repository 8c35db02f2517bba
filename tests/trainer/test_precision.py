"""16-bit and quantised bases."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.trainer.runs import final_weights, losses, save_tiny_base, train_all, write_run

pytestmark = pytest.mark.slow


def test_adapters_on_a_16_bit_base_follow_those_on_a_32_bit_one(tmp_path: Path) -> None:
    base = save_tiny_base(tmp_path / "base")
    settings = {
        "fp32": {"dtype": "fp32", "stage": 2},
        **{f"{d}-{s}": {"dtype": d, "stage": s} for d in ("bf16", "fp16") for s in (0, 2, 3)},
        "fp16-offload": {"dtype": "fp16", "stage": 2, "offload_optimizer": "cpu"},
    }
    runs = {
        name: write_run(tmp_path / name, base, training__steps=12, deepspeed=one)
        for name, one in settings.items()
    }
    train_all(*runs.values(), ranks=2)
    reference = losses(runs["fp32"].parent / "out")
    assert reference[-1] < reference[0] - 0.02
    for name, run in runs.items():
        # bf16 has 8 bits, of a loss near 3.
        assert losses(run.parent / "out") == pytest.approx(reference, abs=0.02), name
        weights = final_weights(run.parent / "out")
        assert {str(tensor.dtype) for tensor in weights.values()} == {"torch.float32"}


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
def test_adapters_are_trained_on_a_quantised_base(tmp_path: Path) -> None:
    # 4-bit weights are stored in blocks of 64.
    base = save_tiny_base(tmp_path / "base", hidden_size=128)
    runs = [
        write_run(
            tmp_path / f"{quantization}-{stage}",
            base,
            training__steps=12,
            deepspeed={"quantization": quantization, "stage": stage},
        )
        for quantization in ("nf4", "int8")
        for stage in (0, 2)
    ]
    train_all(*runs)
    for run in runs:
        curve = losses(run.parent / "out")
        assert curve[-1] < curve[0] - 0.02
    assert losses(runs[0].parent / "out") == pytest.approx(losses(runs[1].parent / "out"), abs=1e-4)
