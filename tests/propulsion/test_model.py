from pathlib import Path

import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file

from propulsion import PropulsionConfig
from propulsion.effective import effective_offsets, effective_scales
from propulsion.errors import AdapterCorruptError, ConfigError, PropulsionError
from propulsion.layer import PropulsionLayer
from propulsion.presets import preset_modules
from tests.propulsion.tiny_llama import tiny_llama, tokens

PER_BLOCK = {"attn": 32 + 16 + 16, "mlp": 48 + 48 + 32, "all": 64 + 32 + 128}


def adapted(**config: object) -> PeftModel:
    settings = {"preset": "all", "degree": 15, "task_type": "CAUSAL_LM", **config}
    return get_peft_model(tiny_llama(), PropulsionConfig(**settings))


def randomize(model: PeftModel, seed: int = 0, size: float = 0.02) -> None:
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "propulsion_delta" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * size


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
    offsets = effective_offsets(tmp_path)
    for name, scale in scales.items():
        assert torch.equal(scale, layers[name])
        torch.testing.assert_close(1 + offsets[name], scale)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"degree": 0}, "degree"),
        ({"degree": 1.5}, "degree"),
        ({"num_vectors": 2}, "num_vectors"),
        ({"pooling": "max"}, "pooling"),
        ({"layers_pattern": "layers"}, "layers_to_transform"),
        ({"target_modules": ".*q_proj", "layers_to_transform": [0]}, "regex"),
    ],
)
def test_wrong_settings_are_refused(setting: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PropulsionConfig(**setting)


def test_unknown_preset_and_architecture_are_refused() -> None:
    with pytest.raises(ConfigError, match="unknown preset 'everything'"):
        adapted(preset="everything")
    with pytest.raises(ConfigError, match="no preset is known for model type 'unheard-of'"):
        preset_modules("all", "unheard-of")


def test_only_linear_layers_can_be_targets() -> None:
    with pytest.raises(PropulsionError, match="Embedding"):
        adapted(target_modules=["embed_tokens"])


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
