from pathlib import Path

import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file

from propulsion import PropulsionConfig
from propulsion.effective import effective_scales, saved_scales
from propulsion.errors import AdapterCorruptError, ConfigError, PropulsionError
from propulsion.layer import PropulsionLayer
from tests.propulsion.adapters import randomize
from tests.propulsion.tiny_llama import tiny_llama, tokens
from tests.propulsion.tiny_models import TINY

PER_BLOCK = {"attn": 32 + 16 + 16, "mlp": 48 + 48 + 32, "all": 64 + 32 + 128}


def adapted(**config: object) -> PeftModel:
    settings = {"preset": "all", "degree": 15, "task_type": "CAUSAL_LM", **config}
    return get_peft_model(tiny_llama(), PropulsionConfig(**settings))


def train_one_step(model: PeftModel) -> None:
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=1e-2)
    model(input_ids=tokens(), labels=tokens()).loss.backward()
    optimizer.step()


@torch.inference_mode()
def logits(model: torch.nn.Module) -> torch.Tensor:
    return model(input_ids=tokens()).logits


def test_fresh_adapter_leaves_logits_bit_equal() -> None:
    assert torch.equal(logits(adapted()), logits(tiny_llama()))


@pytest.mark.parametrize("preset", PER_BLOCK)
def test_preset_trains_one_offset_per_output(preset: str) -> None:
    model = adapted(preset=preset)
    trainable = {n for n, p in model.named_parameters() if p.requires_grad}
    assert all("propulsion_delta" in name for name in trainable)
    assert model.get_nb_trainable_parameters()[0] == 2 * PER_BLOCK[preset]


def test_default_preset_is_attention() -> None:
    model = adapted(preset=None)
    assert model.get_nb_trainable_parameters()[0] == 2 * PER_BLOCK["attn"]


def test_layers_to_transform_limits_the_blocks() -> None:
    model = adapted(layers_to_transform=[1])
    assert model.get_nb_trainable_parameters()[0] == PER_BLOCK["all"]


def test_output_is_base_output_times_z_to_the_degree() -> None:
    base = torch.nn.Linear(4, 3)
    layer = PropulsionLayer(base, "default", PropulsionConfig(degree=3))
    layer.propulsion_delta["default"].data = torch.tensor([[0.5, -1.0, -3.0]])
    x = torch.randn(5, 4)
    torch.testing.assert_close(layer(x), base(x) * torch.tensor([1.5**3, 0.0, (-2.0) ** 3]))


def test_training_moves_only_the_offsets() -> None:
    model = adapted()
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    train_one_step(model)
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert changed
    assert all("propulsion_delta" in name for name in changed)


def test_save_and_load_give_equal_logits(tmp_path: Path) -> None:
    model = adapted()
    train_one_step(model)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(tiny_llama(), tmp_path)
    assert torch.equal(logits(loaded), logits(model))
    assert not torch.equal(logits(loaded), logits(tiny_llama()))


def test_saved_folder_has_the_documented_format(tmp_path: Path) -> None:
    model = adapted(preset="attn", layers_to_transform=[0])
    randomize(model)
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    prefix = "base_model.model.model.layers.0.self_attn"
    assert {name: tuple(t.shape) for name, t in tensors.items()} == {
        f"{prefix}.q_proj.propulsion_delta": (1, 32),
        f"{prefix}.k_proj.propulsion_delta": (1, 16),
        f"{prefix}.v_proj.propulsion_delta": (1, 16),
    }
    assert {t.dtype for t in tensors.values()} == {torch.float32}
    assert not list(tmp_path.glob("*.bin"))


@pytest.mark.parametrize("bias", [False, True])
def test_merged_equals_unmerged(bias: bool) -> None:
    model = get_peft_model(
        tiny_llama(bias=bias), PropulsionConfig(preset="all", task_type="CAUSAL_LM")
    )
    randomize(model)
    wanted = logits(model)
    merged = model.merge_and_unload(safe_merge=True)
    assert not any(isinstance(m, PropulsionLayer) for m in merged.modules())
    torch.testing.assert_close(logits(merged), wanted, rtol=1e-5, atol=1e-5)


def test_unmerge_gives_the_base_back() -> None:
    model = adapted()
    randomize(model)
    wanted = logits(model)
    model.merge_adapter()
    model.unmerge_adapter()
    torch.testing.assert_close(logits(model), wanted, rtol=1e-5, atol=1e-5)
    with model.disable_adapter():
        torch.testing.assert_close(logits(model), logits(tiny_llama()), rtol=1e-5, atol=1e-5)


def test_a_zero_scale_cannot_be_unmerged() -> None:
    layer = PropulsionLayer(torch.nn.Linear(4, 2), "default", PropulsionConfig())
    layer.propulsion_delta["default"].data = torch.tensor([[-1.0, 0.1]])
    layer.merge()
    with pytest.raises(PropulsionError, match="zero scale"):
        layer.unmerge()


def test_safe_merge_refuses_what_is_not_finite() -> None:
    layer = PropulsionLayer(torch.nn.Linear(4, 2), "default", PropulsionConfig())
    weight = layer.get_base_layer().weight.data.clone()
    layer.propulsion_delta["default"].data = torch.tensor([[float("nan"), 0.0]])
    with pytest.raises(PropulsionError, match="not finite"):
        layer.merge(safe_merge=True)
    assert torch.equal(layer.get_base_layer().weight.data, weight)


def test_adapters_switch_disable_and_delete() -> None:
    model = adapted()
    randomize(model, seed=1)
    first = logits(model)
    model.add_adapter("second", PropulsionConfig(preset="attn", degree=3, task_type="CAUSAL_LM"))
    assert torch.equal(logits(model), first)
    model.set_adapter("second")
    assert torch.equal(logits(model), logits(tiny_llama()))
    model.set_adapter("default")
    assert torch.equal(logits(model), first)
    with model.disable_adapter():
        assert torch.equal(logits(model), logits(tiny_llama()))
    model.delete_adapter("second")
    assert torch.equal(logits(model), first)


def test_offsets_stay_fp32_on_a_bf16_base() -> None:
    model = get_peft_model(
        tiny_llama().to(torch.bfloat16), PropulsionConfig(preset="all", task_type="CAUSAL_LM")
    )
    train_one_step(model)
    deltas = [p for n, p in model.named_parameters() if "propulsion_delta" in n]
    assert {p.dtype for p in deltas} == {torch.float32}
    assert any(p.abs().max() > 0 for p in deltas)


def test_effective_scales_are_what_the_layers_apply(tmp_path: Path) -> None:
    model = adapted()
    randomize(model)
    model.save_pretrained(tmp_path)
    layers = {
        name.removeprefix("base_model.model."): module.scale("default").detach()
        for name, module in model.named_modules()
        if isinstance(module, PropulsionLayer)
    }
    scales = effective_scales(tmp_path)
    assert scales.keys() == layers.keys()
    saved = saved_scales(tmp_path)
    for name, scale in scales.items():
        assert torch.equal(scale, layers[name])
        torch.testing.assert_close(1 + saved[name].offset(), scale)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"degree": 0}, "degree"),
        ({"degree": 1.5}, "degree"),
        ({"num_vectors": 0}, "num_vectors"),
        ({"pooling": "median"}, "unknown pooling 'median'; choose one of mean, max, min, l2"),
        ({"init": "xavier"}, "unknown init"),
        ({"preset": "everything"}, "unknown preset 'everything'"),
        ({"qkv_part": "gate"}, "unknown qkv_part"),
        ({"degree_pattern": [5]}, "degree_pattern"),
        ({"degree_pattern": {"q_proj": 0}}, r"degree_pattern\['q_proj'\]"),
        ({"degree_pattern": {"q_(proj": 2}}, "not a regex"),
        ({"layers_pattern": "layers"}, "layers_to_transform"),
        ({"target_modules": ".*q_proj", "layers_to_transform": [0]}, "regex"),
    ],
)
def test_wrong_settings_are_refused(setting: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PropulsionConfig(**setting)


def test_an_unknown_architecture_gets_all_its_linear_layers() -> None:
    class Unknown(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = torch.nn.Linear(4, 6), torch.nn.Linear(6, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(self.first(x))

    model = get_peft_model(Unknown(), PropulsionConfig())
    assert model.get_nb_trainable_parameters()[0] == 6 + 3
    with pytest.raises(ConfigError, match="preset 'attn' is not known for model type 'custom'"):
        get_peft_model(Unknown(), PropulsionConfig(preset="attn"))


def test_a_part_of_a_projection_that_is_not_fused_is_refused() -> None:
    with pytest.raises(ConfigError, match="fused QKV projection"):
        adapted(preset=None, target_modules=["q_proj"], qkv_part="key")


def test_layers_without_a_width_cannot_be_targets() -> None:
    with pytest.raises(PropulsionError, match="cannot scale a layer of type SiLU"):
        adapted(target_modules=["act_fn"])
    with pytest.raises(PropulsionError, match="cannot scale the input of a layer of type Embed"):
        adapted(target_modules=["embed_tokens"], feedforward_modules=["embed_tokens"])


def test_the_offsets_of_a_layer_do_not_depend_on_the_others() -> None:
    """As on ranks, or when a second run adapts fewer layers."""
    mlp = adapted(preset="mlp", num_vectors=2).base_model.scaled_layers()
    everything = adapted(preset="all", num_vectors=2).base_model.scaled_layers()
    for name, layer in mlp.items():
        other = everything[name].propulsion_delta["default"]
        assert torch.equal(layer.propulsion_delta["default"], other)


@pytest.mark.parametrize(
    ("init", "low", "high"),
    [("ones", 0.0, 0.0), ("zeros", -1.0, -1.0), ("normal", -4.5, 2.5), ("uniform", -1.0, 0.0)],
)
def test_init_gives_z_its_first_values(init: str, low: float, high: float) -> None:
    deltas = [
        layer.propulsion_delta["default"]
        for layer in adapted(init=init).base_model.scaled_layers().values()
    ]
    values = torch.cat([delta.flatten() for delta in deltas])
    assert low <= values.min() <= values.max() <= high
    if init in ("normal", "uniform"):
        assert len(values.unique()) > 0.9 * len(values)


@pytest.mark.parametrize("pooling", ["mean", "max", "min", "l2"])
def test_several_vectors_start_apart_and_near_the_base(pooling: str) -> None:
    model = adapted(num_vectors=3, pooling=pooling)
    delta = next(iter(model.base_model.scaled_layers().values())).propulsion_delta["default"]
    assert not torch.equal(delta[0], delta[1])
    torch.testing.assert_close(logits(model), logits(tiny_llama()), rtol=0.02, atol=0.01)


@pytest.mark.parametrize("pooling", ["mean", "l2"])
def test_multi_propulsion_trains_saves_and_merges(pooling: str, tmp_path: Path) -> None:
    model = adapted(num_vectors=3, pooling=pooling)
    randomize(model)
    train_one_step(model)
    wanted = logits(model)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(tiny_llama(), tmp_path)
    assert torch.equal(logits(loaded), wanted)
    assert {scale.shape[0] for scale in effective_scales(tmp_path).values()} == {1}
    torch.testing.assert_close(logits(loaded.merge_and_unload()), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pooling", ["max", "min"])
def test_pooling_that_depends_on_the_sign_is_not_merged(pooling: str, tmp_path: Path) -> None:
    model = adapted(num_vectors=3, pooling=pooling)
    randomize(model)
    train_one_step(model)
    wanted = logits(model)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(tiny_llama(), tmp_path)
    assert torch.equal(logits(loaded), wanted)
    assert {scale.shape[0] for scale in effective_scales(tmp_path).values()} == {2}
    for merge in (loaded.merge_adapter, loaded.merge_and_unload):
        with pytest.raises(PropulsionError, match=f"pools by {pooling}.* cannot be merged"):
            merge()
    assert torch.equal(logits(loaded), wanted)


def test_degree_pattern_gives_some_layers_another_degree(tmp_path: Path) -> None:
    model = adapted(degree=15, degree_pattern={"mlp.down_proj": 5, r"0\.self_attn\.[qk]_proj": 3})
    degrees = {
        name: layer.scaling["default"].degree
        for name, layer in model.base_model.scaled_layers().items()
    }
    assert degrees["model.layers.1.mlp.down_proj"] == 5
    assert degrees["model.layers.0.self_attn.q_proj"] == 3
    assert degrees["model.layers.1.self_attn.q_proj"] == 15
    randomize(model)
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(PeftModel.from_pretrained(tiny_llama(), tmp_path)), logits(model))
    scales = effective_scales(tmp_path)
    for name, layer in model.base_model.scaled_layers().items():
        assert torch.equal(scales[name], layer.scale("default"))


@pytest.mark.parametrize("degree", [1, 2])
@pytest.mark.parametrize("num_vectors", [1, 2])
def test_offsets_where_z_is_0_have_their_gradient(degree: int, num_vectors: int) -> None:
    """Also where the scale is 0, so that the output tells nothing of what was scaled."""
    model = adapted(target_modules=["v_proj"], init="zeros", degree=degree, num_vectors=num_vectors)
    layer = model.base_model.scaled_layers()["model.layers.0.self_attn.v_proj"]
    x = torch.randn(5, 32)
    layer(x).sum().backward()
    wanted = layer.base_layer(x).sum(0) / num_vectors if degree == 1 else torch.zeros(16)
    for grad in layer.propulsion_delta["default"].grad:
        torch.testing.assert_close(grad, wanted)


def test_a_block_saves_no_more_for_backward_than_its_inputs() -> None:
    """Values, gate and up are saved scaled, as attention and activation save them anyway."""

    def saved_bytes(model: torch.nn.Module) -> int:
        weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
        kept: dict[int, torch.UntypedStorage] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                kept[storage.data_ptr()] = storage
            return tensor

        embeddings = torch.randn(1, 64, 32, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(inputs_embeds=embeddings, use_cache=False)
        return sum(storage.nbytes() for storage in kept.values())

    base = saved_bytes(tiny_llama().requires_grad_(False))
    shared = saved_bytes(adapted(preset=None, target_modules=["v_proj", "gate_proj", "up_proj"]))
    scales = 2 * 4 * (16 + 48 + 48)
    # The scales, and what leads from δ to them, are all there is besides.
    assert shared - base <= 3 * scales


def test_feedforward_modules_scale_the_input(tmp_path: Path) -> None:
    model = adapted(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"])
    assert model.get_nb_trainable_parameters()[0] == 2 * (16 + 48)
    randomize(model)
    wanted = logits(model)
    layer = model.base_model.scaled_layers()["model.layers.0.mlp.down_proj"]
    x = torch.randn(5, 48)
    torch.testing.assert_close(layer(x), layer.base_layer(x * layer.scale("default")))
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(tiny_llama(), tmp_path)
    assert torch.equal(logits(loaded), wanted)
    torch.testing.assert_close(logits(loaded.merge_and_unload()), wanted, rtol=1e-5, atol=1e-5)


def test_excluded_and_saved_modules_are_left_alone(tmp_path: Path) -> None:
    model = adapted(exclude_modules=["o_proj"], modules_to_save=["lm_head"])
    trainable = {n for n, p in model.named_parameters() if p.requires_grad}
    assert not any("o_proj" in name for name in trainable)
    assert any("lm_head" in name for name in trainable)
    train_one_step(model)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(tiny_llama(), tmp_path)
    assert torch.equal(logits(loaded), logits(model))


@pytest.mark.parametrize(
    ("target", "count"), [("all-linear", 2 * 224), (r".*layers\.0.*_proj", 224)]
)
def test_targets_can_be_a_regex_or_all_linear_layers(target: str, count: int) -> None:
    model = adapted(preset=None, target_modules=target)
    assert model.get_nb_trainable_parameters()[0] == count


def test_an_excluding_regex_goes_with_a_preset_that_excludes() -> None:
    tiny = TINY["roberta"]
    config = PropulsionConfig(preset="mlp", exclude_modules=r".*layer\.0\..*")
    model = get_peft_model(tiny.build(), config)
    assert model.get_nb_trainable_parameters()[0] == tiny.counts["mlp"] // 2


def test_the_frozen_embedding_is_not_saved_with_its_scale(tmp_path: Path) -> None:
    adapted(preset="embedding").save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    assert set(tensors) == {"base_model.model.model.embed_tokens.propulsion_delta"}


def test_unmerging_ties_weights_again_exactly() -> None:
    base = tiny_llama()
    base.config.tie_word_embeddings = True
    base.tie_weights()
    before = base.lm_head.weight.detach().clone()
    model = get_peft_model(base, PropulsionConfig(preset="embedding"))
    randomize(model)
    wanted = logits(model)
    model.merge_adapter()
    torch.testing.assert_close(logits(model), wanted, rtol=1e-5, atol=1e-5)
    assert torch.equal(base.lm_head.weight, before)
    model.unmerge_adapter()
    assert base.model.embed_tokens.base_layer.weight is base.lm_head.weight
    assert torch.equal(logits(model), wanted)


def test_truncated_weights_are_named(tmp_path: Path) -> None:
    adapted().save_pretrained(tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(AdapterCorruptError, match=r"adapter_model\.safetensors"):
        effective_scales(tmp_path)


def test_another_method_is_not_taken_for_ours(tmp_path: Path) -> None:
    adapted().save_pretrained(tmp_path)
    config = tmp_path / "adapter_config.json"
    config.write_text(config.read_text().replace('"PROPULSION"', '"LORA"'))
    with pytest.raises(AdapterCorruptError, match="peft_type"):
        effective_scales(tmp_path)
    with pytest.raises(AdapterCorruptError, match="no such file"):
        effective_scales(tmp_path / "missing")
