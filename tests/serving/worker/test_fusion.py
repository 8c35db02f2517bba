"""Activations, rotary embeddings and norms that scale, in models as vLLM writes them."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn
from vllm.config import VllmConfig, set_current_vllm_config
from vllm.model_executor.layers.activation import GELU, GeluAndMul, NewGELU, SiluAndMul
from vllm.model_executor.layers.layernorm import GemmaRMSNorm, RMSNorm
from vllm.model_executor.layers.rotary_embedding import get_rope
from vllm.platforms import current_platform

from serving import vllm_compat
from serving.worker.bank import Bank
from serving.worker.fusion import Fusion
from serving.worker.fusion.activation import ScaledActivation
from serving.worker.fusion.search import search
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
    current_platform.import_kernels()
    with set_current_vllm_config(VllmConfig()):
        yield


class Linear(nn.Linear):
    """Returns (output, bias), as vLLM's do."""

    def forward(self, x):
        return super().forward(x), None


class Mlp(nn.Module):
    def __init__(self, act: nn.Module):
        super().__init__()
        is_gated = isinstance(act, SiluAndMul | GeluAndMul)
        self.up = Linear(HIDDEN, 2 * WIDTH if is_gated else WIDTH).requires_grad_(False)
        self.act = act
        self.down = Linear(WIDTH, HIDDEN).requires_grad_(False)

    def forward(self, x):
        x, _ = self.up(x)
        x = self.act(x)
        return self.down(x)[0]


class Halving(Mlp):
    def forward(self, x):
        x, _ = self.up(x)
        return self.down(self.act(x / 2))[0]


class ReadingBefore(Mlp):
    def forward(self, x):
        x, _ = self.up(x)
        larger = x.abs().max()
        return self.down(self.act(x))[0] / larger


class ReadingAfter(Mlp):
    def forward(self, x):
        x, _ = self.up(x)
        return self.down(self.act(x))[0] + x[:, :HIDDEN]


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


def find(*models: nn.Module) -> dict[str, Fusion]:
    x = torch.ones(2, HIDDEN)
    return search(nn.ModuleList(models), lambda: [model(x) for model in models])


def fuse(*mlps: Mlp, captured: bool = False) -> tuple[list[LayerScale], Bank]:
    layers, bank = prepared(*mlps)
    found = find(*mlps)
    assert list(found) == [layer.name for layer in layers]
    scales = [LayerScale(layer, bank) for layer in layers]
    for layer, fusion, scale in zip(layers, found.values(), scales, strict=True):
        fusion.scale_by(layer, scale, captured=captured)
    return scales, bank


def hooked_and_fused(hooked: nn.Module, fused: nn.Module, pairs: bool) -> list[torch.Tensor]:
    """What the same weights answer, scaled by a hook and by what reads the layer."""
    x = torch.randn(len(SLOTS), HIDDEN)
    fused.load_state_dict(hooked.state_dict())
    (layer,), hooks_bank = prepared(hooked)
    attach(layer, hooks_bank, captured=False)
    _, bank = fuse(fused)
    if pairs:
        for one in (hooks_bank, bank):
            one.has_pairs = True
            one.set_token_slots(np.array(SLOTS, np.int32), np.array([1, 0, 2, 2], np.int32))
    return [model(x) for model in (hooked, fused)]


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_fused_mlp_answers_as_one_with_a_hook(make, pairs):
    answers = hooked_and_fused(Mlp(make()), Mlp(make()), pairs)
    torch.testing.assert_close(answers[1], answers[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [Halving, ReadingBefore, ReadingAfter, Twice])
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


HEADS, KV_HEADS, HEAD_SIZE = 2, 1, 32


class Attention(nn.Module):
    """Returns queries, keys and values side by side, as attention is given them."""

    def __init__(self, is_neox: bool = True, rotary_dim: int = HEAD_SIZE):
        super().__init__()
        self.up = Linear(HIDDEN, (HEADS + 2 * KV_HEADS) * HEAD_SIZE).requires_grad_(False)
        self.rotary_emb = get_rope(
            HEAD_SIZE,
            64,
            is_neox_style=is_neox,
            rope_parameters={
                "rope_theta": 100.0,
                "rope_type": "default",
                "partial_rotary_factor": rotary_dim / HEAD_SIZE,
            },
            dtype=torch.float32,
        )

    def split(self, x):
        sizes = [HEADS * HEAD_SIZE, KV_HEADS * HEAD_SIZE, KV_HEADS * HEAD_SIZE]
        return self.up(x)[0].split(sizes, dim=-1)

    def forward(self, x):
        q, k, v = self.split(x)
        q, k = self.rotary_emb(torch.arange(len(x)), q, k)
        return torch.cat((q, k, v), dim=-1)


class NormedQueries(Attention):
    def forward(self, x):
        q, k, v = self.split(x)
        q = q / q.norm(dim=-1, keepdim=True)
        q, k = self.rotary_emb(torch.arange(len(x)), q, k)
        return torch.cat((q, k, v), dim=-1)


class QueriesAlone(Attention):
    def forward(self, x):
        q, k, v = self.split(x)
        q, _ = self.rotary_emb(torch.arange(len(x)), q, None)
        return torch.cat((q, k, v), dim=-1)


class CopiedValues(Attention):
    def forward(self, x):
        q, k, v = self.split(x)
        v = v.clone()
        q, k = self.rotary_emb(torch.arange(len(x)), q, k)
        return torch.cat((q, k, v), dim=-1)


class KeysFirst(Attention):
    def forward(self, x):
        q, k, v = self.split(x)
        k, q = self.rotary_emb(torch.arange(len(x)), k, q)
        return torch.cat((q, k, v), dim=-1)


class Block(nn.Module):
    """A projection and the norm after it; the input is the residual."""

    def __init__(self, norm: nn.Module | None = None):
        super().__init__()
        self.up = Linear(HIDDEN, HIDDEN).requires_grad_(False)
        self.norm = RMSNorm(HIDDEN, eps=1e-3) if norm is None else norm
        with torch.no_grad():
            self.norm.weight.uniform_(0.5, 1.5)

    def forward(self, x):
        x, residual = self.norm(self.up(x)[0], x.clone())
        return torch.cat((x, residual), dim=-1)


class Unsummed(Block):
    def forward(self, x):
        return self.norm(self.up(x)[0])


class SummedOutside(Block):
    def forward(self, x):
        return self.norm(self.up(x)[0] + x)


class ReadBetween(Block):
    def forward(self, x):
        y = self.up(x)[0]
        kept = y + x
        return self.norm(y, x.clone())[0] + kept


MODELS = {
    "neox": lambda: Attention(),
    "gpt-j": lambda: Attention(is_neox=False),
    "part of a head": lambda: Attention(rotary_dim=16),
    "norm": lambda: Block(),
}


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_fused_rotary_embeddings_and_norms_answer_as_hooks(make, pairs):
    answers = hooked_and_fused(make(), make(), pairs)
    torch.testing.assert_close(answers[1], answers[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_without_an_active_adapter_they_are_what_they_were(make):
    x = torch.randn(len(SLOTS), HIDDEN)
    plain, fused = make(), make()
    fused.load_state_dict(plain.state_dict())
    (scale,), _ = fuse(fused)
    scaled = fused(x)
    scale.active = False
    assert torch.equal(fused(x), plain(x))
    assert not torch.equal(scaled, plain(x))


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_one_compiled_graph_turns_and_norms_for_all_adapters(make):
    # vLLM compiles with this option.
    model = make()
    _, bank = fuse(model, captured=True)
    compiled = torch.compile(
        model, fullgraph=True, options={"enable_auto_functionalized_v2": False}
    )
    x = torch.randn(len(SLOTS), HIDDEN)
    for slots in (SLOTS, [0, 0, 0, 0], [1, 2, 1, 2]):
        bank.set_token_slots(np.array(slots, dtype=np.int32), None)
        torch.testing.assert_close(compiled(x), model(x))


@pytest.mark.parametrize("kind", [NormedQueries, QueriesAlone, CopiedValues, KeysFirst])
def test_queries_keys_or_values_that_the_model_changes_are_scaled_before(kind):
    assert find(kind()) == {}


@pytest.mark.parametrize("kind", [Unsummed, SummedOutside, ReadBetween])
def test_a_norm_that_is_given_anything_else_is_left_alone(kind):
    assert find(kind()) == {}


def test_a_norm_of_another_kind_is_left_alone():
    assert find(Block(GemmaRMSNorm(HIDDEN))) == {}


def test_layers_that_share_a_rotary_embedding_scale_each_by_its_own():
    layers = [Attention(), Attention()]
    assert layers[0].rotary_emb is layers[1].rotary_emb
    scales, _ = fuse(*layers)
    assert [layer.rotary_emb.scale for layer in layers] == scales


def test_a_fused_norm_keeps_the_names_of_its_parameters_and_its_hooks():
    block = Block()
    names = list(block.state_dict())
    block.norm.register_forward_hook(lambda module, args, output: (output[0] * 0, output[1]))
    fuse(block)
    assert list(block.state_dict()) == names
    x = torch.randn(len(SLOTS), HIDDEN)
    assert not block(x)[:, :HIDDEN].any()


def test_a_model_that_cannot_be_run_on_tokens_alone_is_left_as_it_is():
    model = Mlp(GELU())
    assert search(model, lambda: model(torch.ones(2, HIDDEN + 1))) == {}
