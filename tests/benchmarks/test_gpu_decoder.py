"""The decoders of the GPU benchmark: all variants of a step compute what they are named after."""

from dataclasses import replace

import pytest
import torch

from benchmarks.gpu.adapters import GroupedLora, Unfused, make_bank, slots_of
from benchmarks.gpu.decoder import Decoder
from benchmarks.gpu.passes import Fused
from benchmarks.gpu.plain import Plain, compiled
from benchmarks.gpu.shapes import BLOOMZ_7B1, GPTJ_6B, LLAMA_7B, LLAMA_13B, Shape

ADAPTERS = 3
SMALL = {"hidden": 32, "intermediate": 48, "head": 8, "tokens": 6}


@pytest.fixture(params=[LLAMA_7B, BLOOMZ_7B1, GPTJ_6B], ids=lambda shape: shape.model)
def model(request: pytest.FixtureRequest) -> Shape:
    return request.param


@pytest.fixture(params=[0, 5], ids=["prefill", "decode"])
def decoder(request: pytest.FixtureRequest, model: Shape) -> Decoder:
    small = replace(model.tiny(), **SMALL, context=request.param)
    rotary = 8 * model.rotary // model.head
    return Decoder(replace(small, rotary=rotary), "cpu", torch.float32)


def test_the_bases_are_the_same(decoder: Decoder) -> None:
    torch.testing.assert_close(decoder.step(plain=Plain()), decoder.step(), rtol=0, atol=1e-4)


def test_the_passes_of_the_second_base_compile_whole(decoder: Decoder) -> None:
    torch.compiler.reset()
    traced = decoder.step(plain=compiled("eager"))
    torch.testing.assert_close(traced, decoder.step(plain=Plain()), rtol=0, atol=1e-5)


def test_fused_and_unfused_scales_are_those_of_scaled_weights(decoder: Decoder) -> None:
    torch.manual_seed(0)
    bank = make_bank(decoder.shape, ADAPTERS, "cpu")
    fused = Fused(slots_of(6, 1, "cpu"), bank)
    by_kernel, by_pass = decoder.step(fused=fused), decoder.step(applied=Unfused(fused))
    torch.testing.assert_close(by_kernel, by_pass, rtol=0, atol=1e-4)
    base = decoder.step()
    for layer, weights in enumerate(decoder.weights):
        for name, weight in weights.items():
            scale = 1 + bank[name][layer][1]
            weight.mul_(scale[:, None])
            if name in decoder.biases[layer]:
                decoder.biases[layer][name].mul_(scale)
    torch.testing.assert_close(decoder.step(), by_kernel, rtol=0, atol=1e-4)
    assert (base - by_kernel).abs().max() > 1e-3


def test_every_token_of_a_fused_step_has_its_own_adapter(decoder: Decoder) -> None:
    if not decoder.shape.context:
        pytest.skip("in a prefill tokens see each other")
    bank = make_bank(decoder.shape, ADAPTERS, "cpu")
    mixed = decoder.step(fused=Fused(slots_of(6, ADAPTERS, "cpu"), bank))
    for adapter in range(ADAPTERS):
        alone = decoder.step(fused=Fused(torch.full((6,), adapter + 1, dtype=torch.int32), bank))
        tokens = slice(2 * adapter, 2 * adapter + 2)
        torch.testing.assert_close(mixed[tokens], alone[tokens], rtol=0, atol=1e-5)


def test_one_layer_is_the_first(decoder: Decoder) -> None:
    layer = decoder.one_layer()
    assert layer.shape == replace(decoder.shape, layers=1)
    assert layer.weights is decoder.weights
    assert layer.step().isfinite().all()


# Of the published models, in thousands of millions: embeddings and heads are not in the blocks.
@pytest.mark.parametrize(
    ("shape", "billions", "layers"),
    [(LLAMA_7B, 6.48, 32), (LLAMA_13B, 12.69, 40), (BLOOMZ_7B1, 6.04, 30), (GPTJ_6B, 5.64, 28)],
    ids=lambda value: value.model if isinstance(value, Shape) else "",
)
def test_the_models_have_their_sizes(shape: Shape, billions: float, layers: int) -> None:
    matrices = sum(linear.width * linear.inputs for linear in shape.projections.values())
    assert shape.layers == layers
    assert shape.layers * matrices / 1e9 == pytest.approx(billions, abs=0.01)


def test_tokens_come_in_equal_runs() -> None:
    assert slots_of(6, 3, "cpu").tolist() == [1, 1, 2, 2, 3, 3]
    assert slots_of(2, 3, "cpu").tolist() == [1, 2]


def test_grouped_lora_is_lora(decoder: Decoder) -> None:
    lora = GroupedLora(decoder.shape, 2, ADAPTERS, "cpu", torch.float32)
    for name, linear in decoder.shape.projections.items():
        x = torch.randn(6, linear.inputs)
        got, wanted = torch.zeros(6, linear.width), torch.zeros(6, linear.width)
        lora(1, name, x, got)
        width = linear.width // linear.parts
        for token in range(6):
            down, up = lora._down[name][1][token // 2], lora._up[name][1][token // 2]
            for part in range(linear.parts):
                of_part = slice(part * width, (part + 1) * width)
                low = x[token] @ down[:, 2 * part : 2 * part + 2]
                wanted[token, of_part] = low @ up[:, of_part]
        torch.testing.assert_close(got, wanted)
