import numpy as np
import pytest
import torch
from torch import nn

from serving.worker.bank import Bank
from serving.worker.hooks import LayerScale, attach
from serving.worker.targets import Part, ScaledLayer

D_OUT = 24


class VllmStyleLinear(nn.Linear):
    """Returns (output, bias), as vLLM's linear layers do."""

    def forward(self, x):
        return super().forward(x), None


@pytest.fixture
def bank() -> Bank:
    return Bank({"layer": D_OUT}, num_slots=2, max_num_tokens=64, device="cpu")


def attached(
    bank: Bank, dtype: torch.dtype = torch.float32, *, captured: bool = True
) -> VllmStyleLinear:
    return attached_with_scale(bank, dtype, captured=captured)[0]


def attached_with_scale(
    bank: Bank, dtype: torch.dtype = torch.float32, *, captured: bool
) -> tuple[VllmStyleLinear, LayerScale]:
    torch.manual_seed(0)
    layer = VllmStyleLinear(8, D_OUT).to(dtype).requires_grad_(False)
    part = Part(0, slice(0, D_OUT), D_OUT)
    return layer, attach(
        ScaledLayer("layer", layer, D_OUT, {"layer": part}, {}), bank, captured=captured
    )


def set_slots(bank: Bank, slots) -> None:
    bank.set_token_slots(np.array(slots, dtype=np.int32), None)


def plain(layer: VllmStyleLinear, x: torch.Tensor) -> torch.Tensor:
    return nn.functional.linear(x, layer.weight, layer.bias)


def test_each_token_is_scaled_after_the_bias_by_its_own_adapter(bank):
    layer = attached(bank)
    rows = torch.randn(3, D_OUT)
    for slot in (1, 2):
        bank.write(slot, nn.functional.pad(rows[slot], (0, bank.width - D_OUT)))
    set_slots(bank, [2, 0, 1, 2])
    x = torch.randn(4, 8)
    output, bias = layer(x)
    assert bias is None
    scales = torch.stack([1 + rows[2], torch.ones(D_OUT), 1 + rows[1], 1 + rows[2]])
    torch.testing.assert_close(output, plain(layer, x) * scales)
    assert torch.equal(output[1], plain(layer, x)[1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_outputs_are_scaled_in_float32_and_rounded_once(bank, dtype):
    layer = attached(bank, dtype)
    row = torch.rand(bank.width) * 1e-2
    bank.write(1, row)
    set_slots(bank, [1] * 16)
    x = torch.randn(16, 8, dtype=dtype)
    output, _ = layer(x)
    wanted = (plain(layer, x).float() * (1 + row[:D_OUT])).to(dtype)
    assert output.dtype == dtype
    assert torch.equal(output, wanted)


def test_one_compiled_graph_serves_all_batch_sizes_and_adapters(bank):
    layer = attached(bank)
    graphs = []

    def count(graph, example_inputs):
        graphs.append(graph)
        return graph.forward

    # As vLLM compiles: the whole model in one graph, only the number of tokens dynamic.
    model = nn.Sequential(nn.Identity(), layer)
    compiled = torch.compile(model, backend=count, fullgraph=True, dynamic=False)
    for num_tokens in (64, 3, 17):
        bank.write(1, torch.randn(bank.width))
        set_slots(bank, np.arange(num_tokens) % 2)
        x = torch.randn(num_tokens, 8)
        torch._dynamo.mark_dynamic(x, 0)
        output, _ = compiled(x)
        torch.testing.assert_close(output, layer(x)[0])
        assert not torch.allclose(output, plain(layer, x))
    assert len(graphs) == 1


def test_negative_values_take_the_second_row_where_it_differs(bank):
    layer = attached(bank)
    rows = torch.randn(3, bank.width)
    for slot in (1, 2):
        bank.write(slot, rows[slot])
    bank.has_pairs = True
    bank.set_token_slots(np.array([1, 1, 0], dtype=np.int32), np.array([2, 1, 0], dtype=np.int32))
    x = torch.randn(3, 8)
    output, _ = layer(x)
    frozen = plain(layer, x)
    pair = torch.where(
        frozen[0] < 0, frozen[0] * (1 + rows[2, :D_OUT]), frozen[0] * (1 + rows[1, :D_OUT])
    )
    torch.testing.assert_close(output[0], pair)
    torch.testing.assert_close(output[1], frozen[1] * (1 + rows[1, :D_OUT]))
    assert torch.equal(output[2], frozen[2])


def test_a_layer_that_no_adapter_of_the_batch_scales_is_skipped_unless_captured(bank):
    bank.write(1, torch.ones(bank.width))
    set_slots(bank, [1])
    x = torch.randn(1, 8)
    layer, scale = attached_with_scale(bank, captured=False)
    scale.active = False
    assert torch.equal(layer(x)[0], plain(layer, x))
    layer, scale = attached_with_scale(bank, captured=True)
    scale.active = False
    torch.testing.assert_close(layer(x)[0], 2 * plain(layer, x))


def test_what_goes_into_a_layer_can_be_scaled(bank):
    torch.manual_seed(0)
    layer = VllmStyleLinear(D_OUT, 4).requires_grad_(False)
    part = Part(0, slice(0, D_OUT), D_OUT)
    target = ScaledLayer("layer", layer, D_OUT, {}, {"layer": part}, scales_input=True)
    attach(target, bank, captured=False)
    row = torch.randn(bank.width)
    bank.write(2, row)
    set_slots(bank, [2, 0])
    x = torch.randn(2, D_OUT)
    scaled = torch.stack([x[0] * (1 + row[:D_OUT]), x[1]])
    torch.testing.assert_close(layer(x.clone())[0], plain(layer, scaled))
