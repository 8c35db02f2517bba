import numpy as np
import pytest
import torch
from torch import nn

from serving.worker.bank import Bank
from serving.worker.layers import Part, ScaledLayer, attach

D_OUT = 24


class VllmStyleLinear(nn.Linear):
    """Returns (output, bias), as vLLM's linear layers do."""

    def forward(self, x):
        return super().forward(x), None


@pytest.fixture
def bank() -> Bank:
    return Bank({"layer": D_OUT}, num_slots=2, max_num_tokens=64, device="cpu")


def attached(bank: Bank, dtype: torch.dtype = torch.float32) -> VllmStyleLinear:
    torch.manual_seed(0)
    layer = VllmStyleLinear(8, D_OUT).to(dtype).requires_grad_(False)
    attach(ScaledLayer("layer", layer, {"layer": Part(0, D_OUT, 0, D_OUT)}), bank)
    return layer


def plain(layer: VllmStyleLinear, x: torch.Tensor) -> torch.Tensor:
    return nn.functional.linear(x, layer.weight, layer.bias)


def test_each_token_is_scaled_after_the_bias_by_its_own_adapter(bank):
    layer = attached(bank)
    rows = torch.randn(3, D_OUT)
    for slot in (1, 2):
        bank.write(slot, nn.functional.pad(rows[slot], (0, bank.width - D_OUT)))
    bank.set_token_slots(np.array([2, 0, 1, 2]))
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
    bank.set_token_slots(np.ones(16, dtype=np.int64))
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
        bank.set_token_slots(np.arange(num_tokens) % 2)
        x = torch.randn(num_tokens, 8)
        torch._dynamo.mark_dynamic(x, 0)
        output, _ = compiled(x)
        torch.testing.assert_close(output, layer(x)[0])
        assert not torch.allclose(output, plain(layer, x))
    assert len(graphs) == 1
