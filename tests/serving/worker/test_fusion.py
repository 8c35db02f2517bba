"""Activations that scale, in MLPs as vLLM writes them."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn
from vllm.config import VllmConfig, set_current_vllm_config
from vllm.model_executor.layers.activation import GELU, GeluAndMul, NewGELU, SiluAndMul
from vllm.platforms import current_platform

from serving import vllm_compat
from serving.worker.bank import Bank
from serving.worker.fusion import Activation, ScaledActivation, find_activations
from serving.worker.hooks import LayerScale, attach
from serving.worker.targets import ScaledLayer

HIDDEN = 16
WIDTH = 24
SLOTS = [2, 0, 1, 2]
MAKERS = {
    "silu and mul": SiluAndMul,
    "gelu and mul": GeluAndMul,
    "gelu (tanh) and mul": lambda: GeluAndMul(approximate="tanh"),
    "gelu": GELU,
    "new gelu": NewGELU,
    "torch's gelu": lambda: nn.GELU(approximate="tanh"),
}


@pytest.fixture(autouse=True)
def vllm(monkeypatch) -> Iterator[None]:
    """Its activations, and linear layers that need no process group."""
    monkeypatch.setattr(vllm_compat, "LinearBase", Linear)
    monkeypatch.setattr(vllm_compat, "RowParallelLinear", RowLinear)
    current_platform.import_kernels()
    with set_current_vllm_config(VllmConfig()):
        yield


class Linear(nn.Linear):
    """Returns (output, bias), as vLLM's do."""

    @property
    def input_size(self) -> int:
        return self.in_features

    def forward(self, x):
        return super().forward(x), None


class RowLinear(Linear):
    pass


class Mlp(nn.Module):
    def __init__(self, act: nn.Module):
        super().__init__()
        is_gated = isinstance(act, SiluAndMul | GeluAndMul)
        self.up = Linear(HIDDEN, 2 * WIDTH if is_gated else WIDTH).requires_grad_(False)
        self.act = act
        self.down = RowLinear(WIDTH, HIDDEN).requires_grad_(False)

    def forward(self, x):
        x, _ = self.up(x)
        x = self.act(x)
        return self.down(x)[0]


class Halving(Mlp):
    def forward(self, x):
        x, _ = self.up(x)
        return self.down(self.act(x / 2))[0]


class TwoInputs(Mlp):
    def forward(self, x, y):
        return super().forward(x + y)


class Twice(Mlp):
    def forward(self, x):
        return super().forward(super().forward(x))


def prepared(*mlps: Mlp) -> tuple[list[ScaledLayer], Bank]:
    """Their first layers, and a bank with random rows in slots 1 and 2."""
    layers = [
        ScaledLayer(f"{i}.up", mlp.up, mlp.up.out_features, {}, {}) for i, mlp in enumerate(mlps)
    ]
    bank = Bank({layer.name: layer.width for layer in layers}, 2, 64, "cpu")
    generator = torch.Generator().manual_seed(0)
    for slot in (1, 2):
        bank.write(slot, torch.rand(bank.width, generator=generator) - 0.5)
    bank.set_token_slots(np.array(SLOTS, dtype=np.int32), None)
    return layers, bank


def find(*mlps: Mlp) -> dict[str, Activation]:
    return find_activations(nn.ModuleList(mlps), torch.float32, torch.device("cpu"))


def fuse(*mlps: Mlp, captured: bool = False) -> tuple[list[LayerScale], Bank]:
    layers, bank = prepared(*mlps)
    found = find(*mlps)
    assert list(found) == [layer.name for layer in layers]
    scales = [LayerScale(layer, bank) for layer in layers]
    for activation, scale in zip(found.values(), scales, strict=True):
        activation.scale_by(scale, captured=captured)
    return scales, bank


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_fused_mlp_answers_as_one_with_a_hook(make, pairs):
    x = torch.randn(len(SLOTS), HIDDEN)
    hooked = Mlp(make())
    fused = Mlp(make())
    fused.load_state_dict(hooked.state_dict())
    (layer,), hooks_bank = prepared(hooked)
    attach(layer, hooks_bank, captured=False)
    _, bank = fuse(fused)
    if pairs:
        for one in (hooks_bank, bank):
            one.has_pairs = True
            one.set_token_slots(np.array(SLOTS, np.int32), np.array([1, 0, 2, 2], np.int32))
    answers = [mlp(x) for mlp in (hooked, fused)]
    torch.testing.assert_close(answers[1], answers[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [Halving, TwoInputs, Twice])
def test_an_activation_of_anything_else_than_the_layers_output_is_left_alone(kind):
    assert find(kind(NewGELU())) == {}


def test_other_activations_are_left_alone():
    assert find(Mlp(nn.ReLU())) == {}


def test_one_activation_shared_by_many_layers_scales_each_by_its_own():
    shared = nn.GELU()
    mlps = [Mlp(shared), Mlp(shared)]
    scales, _ = fuse(*mlps)
    assert [mlp.act.scale for mlp in mlps] == scales
    assert not torch.equal(scales[0].rows[1], scales[1].rows[1])


def test_a_batch_that_does_not_scale_the_layer_runs_the_models_own_activation():
    mlp = Mlp(NewGELU())
    (scale,), _ = fuse(mlp)
    x = torch.randn(len(SLOTS), HIDDEN)
    scaled = mlp(x)
    scale.active = False
    plain = mlp.down(mlp.act.original(mlp.up(x)[0]))[0]
    assert torch.equal(mlp(x), plain)
    assert not torch.equal(scaled, plain)


def test_one_compiled_graph_serves_all_adapters():
    mlp = Mlp(nn.GELU())
    _, bank = fuse(mlp, captured=True)
    assert isinstance(mlp.act, ScaledActivation)
    compiled = torch.compile(mlp, fullgraph=True, backend="aot_eager")
    x = torch.randn(len(SLOTS), HIDDEN)
    for slots in (SLOTS, [0, 0, 0, 0], [1, 2, 1, 2]):
        bank.set_token_slots(np.array(slots, dtype=np.int32), None)
        torch.testing.assert_close(compiled(x), mlp(x))
