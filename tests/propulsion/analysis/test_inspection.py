import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from propulsion.analysis.inspection import (
    AdaptedModule,
    by_kind,
    layer_kind,
    read_modules,
    summarize,
)
from propulsion.errors import AdapterCorruptError
from tests.propulsion.analysis.models import llama, save_adapter

KEY = "base_model.model.{}.propulsion_delta"


def module(name: str, delta: list[list[float]], scale: list[list[float]]) -> AdaptedModule:
    return AdaptedModule(name, torch.tensor(delta), torch.tensor(scale))


def test_statistics_are_of_all_values() -> None:
    modules = [
        module("a", [[-0.02, 0.02, 0.5]], [[0.9, 1.1, 7.0]]),
        module("b", [[0.0, -0.021]], [[1.0, 0.5]]),
    ]
    z = torch.tensor([0.98, 1.02, 1.5, 1.0, 0.979], dtype=torch.float64)
    found = summarize("both", modules)
    assert (found.name, found.modules, found.values) == ("both", 2, 5)
    assert found.mean == pytest.approx(float(z.mean()))
    assert found.std == pytest.approx(float(((z - z.mean()) ** 2).mean().sqrt()))
    assert (found.minimum, found.maximum) == pytest.approx((0.979, 1.5))
    # The bounds belong to the range, and so do offsets that fp32 rounded onto them.
    assert found.share_near_one == pytest.approx(3 / 5)
    assert (found.scale_minimum, found.scale_maximum) == pytest.approx((0.5, 7.0))


def test_one_value_has_no_spread() -> None:
    found = summarize("a", [module("a", [[0.25]], [[1.25]])])
    assert (found.mean, found.std, found.share_near_one) == (1.25, 0.0, 0.0)


def test_scales_of_one_row_two_rows_or_none_are_all_understood() -> None:
    for scale in (torch.tensor([0.5, 2.0]), torch.tensor([[0.5], [2.0]])):
        found = summarize("a", [AdaptedModule("a", torch.zeros(1, 2), scale)])
        assert (found.scale_minimum, found.scale_maximum) == (0.5, 2.0)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("model.layers.3.self_attn.q_proj", "self_attn.q_proj"),
        ("bert.encoder.layer.11.attention.output.dense", "attention.output.dense"),
        ("bert.encoder.layer.11.output.dense", "output.dense"),
        ("encoder.block.0.layer.1.DenseReluDense.wo", "DenseReluDense.wo"),
        ("model.embed_tokens", "model.embed_tokens"),
        ("blocks.2.mlp.0", "mlp.0"),
        ("classifier.0", "classifier.0"),
    ],
)
def test_kind_is_the_place_within_a_block(name: str, kind: str) -> None:
    assert layer_kind(name) == kind


def test_modules_of_a_saved_adapter_come_in_the_order_of_the_blocks(tmp_path: Path) -> None:
    save_adapter(tmp_path, llama(layers=11), preset="attn")
    modules = read_modules(tmp_path)
    kinds = by_kind(modules)
    assert list(kinds) == ["self_attn.k_proj", "self_attn.q_proj", "self_attn.v_proj"]
    assert [m.name.split(".")[2] for m in kinds["self_attn.q_proj"]] == [*map(str, range(11))]
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    for found in modules:
        assert torch.equal(found.delta, tensors[KEY.format(found.name)])
        torch.testing.assert_close(found.scale.flatten(), found.z.float() ** 15)


def test_the_degree_of_each_layer_is_its_own(adapter: Path) -> None:
    for found in read_modules(adapter):
        degree = 3 if found.name.endswith("mlp.down_proj") else 15
        torch.testing.assert_close(found.scale.flatten(), found.z.float() ** degree)


def test_pooled_vectors_count_one_by_one_but_scale_together(tmp_path: Path) -> None:
    save_adapter(tmp_path, llama(layers=1), num_vectors=3, pooling="max", degree=2, preset="attn")
    found = next(m for m in read_modules(tmp_path) if m.name.endswith("q_proj"))
    assert found.delta.shape == (3, 16)
    assert summarize("q", [found]).values == 48
    powers = (1 + found.delta) ** 2
    assert summarize("q", [found]).scale_maximum == pytest.approx(float(powers.max()))
    assert summarize("q", [found]).scale_minimum == pytest.approx(float(powers.min()))


@pytest.mark.parametrize(("value", "what"), [(float("nan"), "z"), (1e30, "scales")])
def test_values_that_are_not_finite_are_refused_by_layer(
    tmp_path: Path, value: float, what: str
) -> None:
    save_adapter(tmp_path, llama(layers=1), preset="attn")
    path = tmp_path / "adapter_model.safetensors"
    tensors = load_file(path)
    tensors[KEY.format("model.layers.0.self_attn.k_proj")][0, :2] = value
    save_file(tensors, path)
    with pytest.raises(AdapterCorruptError, match=f"k_proj: 2 of 8 {what} are not finite"):
        read_modules(tmp_path)


def test_what_is_no_propulsion_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AdapterCorruptError, match="no such file"):
        read_modules(tmp_path)
    save_adapter(tmp_path, llama(layers=1))
    config = tmp_path / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"peft_type": "LORA"}))
    with pytest.raises(AdapterCorruptError, match="peft_type"):
        read_modules(tmp_path)
