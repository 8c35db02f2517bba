"""The decoder of the GPU benchmark: all its variants compute what they are named after."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.gpu.adapters import PARTS, GroupedLora, Unfused, make_bank, slots_of
from benchmarks.gpu.decoder import Decoder, Fused, Shape
from benchmarks.gpu.plain import Plain, act_mul, add_norm, rope
from benchmarks.gpu.tables import goals

ADAPTERS = 3


@pytest.fixture(params=[0, 5], ids=["prefill", "decode"])
def decoder(request: pytest.FixtureRequest) -> Decoder:
    shape = Shape(layers=2, hidden=32, intermediate=48, head=8, tokens=6, context=request.param)
    return Decoder(shape, "cpu", torch.float32)


def test_the_bases_are_the_same(decoder: Decoder) -> None:
    plain = Plain(rope, act_mul, add_norm)
    torch.testing.assert_close(decoder.step(plain=plain), decoder.step(), rtol=0, atol=1e-4)


def test_fused_and_unfused_scales_are_those_of_scaled_weights(decoder: Decoder) -> None:
    torch.manual_seed(0)
    bank = make_bank(decoder.shape, ADAPTERS, "cpu")
    fused = Fused(slots_of(6, 1, "cpu"), bank)
    by_kernel, by_pass = decoder.step(fused=fused), decoder.step(applied=Unfused(fused))
    torch.testing.assert_close(by_kernel, by_pass, rtol=0, atol=1e-4)
    base = decoder.step()
    for layer, weights in enumerate(decoder.weights):
        for name, weight in weights.items():
            weight.mul_(1 + bank[name][layer][1][:, None])
    torch.testing.assert_close(decoder.step(), by_kernel, rtol=0, atol=1e-4)
    assert (base - by_kernel).abs().max() > 1e-3


def test_tokens_come_in_equal_runs() -> None:
    assert slots_of(6, 3, "cpu").tolist() == [1, 1, 2, 2, 3, 3]
    assert slots_of(2, 3, "cpu").tolist() == [1, 2]


def test_grouped_lora_is_lora(decoder: Decoder) -> None:
    lora = GroupedLora(decoder.shape, 2, ADAPTERS, "cpu", torch.float32)
    for name, parts in PARTS.items():
        x = torch.randn(6, decoder.shape.inputs[name])
        width = decoder.shape.widths[name]
        got, wanted = torch.zeros(6, width), torch.zeros(6, width)
        lora(1, name, x, got)
        for token in range(6):
            down, up = lora._down[name][1][token // 2], lora._up[name][1][token // 2]
            for part in range(parts):
                of_part = slice(part * width // parts, (part + 1) * width // parts)
                low = x[token] @ down[:, 2 * part : 2 * part + 2]
                wanted[token, of_part] = low @ up[:, of_part]
        torch.testing.assert_close(got, wanted)


def test_goals_are_met_or_not_by_the_median() -> None:
    def spread(median: float) -> dict[str, float]:
        return {"median": median, "low": 0.0, "high": 9.0}

    step = {"layers": 32, "phase": "decode", "variant": "propulsion fused, 256 adapters"}
    result = {
        "bandwidth": [
            {"kernel": "scale_rope", "tokens": 64, "share_of_copy": spread(0.1)},
            {"kernel": "scale_rope", "tokens": 8192, "share_of_copy": spread(0.86)},
        ],
        "decoding": [
            {**step, "tokens": 1, "ratio_to_base": spread(1.015)},
            {**step, "tokens": 8, "ratio_to_base": spread(2.0)},
            {**step, "tokens": 64, "ratio_to_base": spread(1.015)},
        ],
    }
    assert [goal["is_met"] for goal in goals(result)] == [True, True, False]


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
    assert (tmp_path / "gpu.json").exists()
