from pathlib import Path

import pytest
import torch
from peft import PeftModel, get_peft_model

from propulsion import PropulsionConfig
from propulsion.errors import ConfigError
from tests.propulsion.adapters import randomize
from tests.propulsion.tiny_llama import tiny_llama, tokens


def two(**second: object) -> PeftModel:
    model = get_peft_model(
        tiny_llama(), PropulsionConfig(preset="attn", degree=15, task_type="CAUSAL_LM"), "a"
    )
    settings = {"preset": "all", "degree": 3, "num_vectors": 2, **second}
    model.add_adapter("b", PropulsionConfig(**settings, task_type="CAUSAL_LM"))
    randomize(model, seed=1)
    return model


@torch.inference_mode()
def logits(model: torch.nn.Module) -> torch.Tensor:
    return model(input_ids=tokens()).logits


def test_linear_adds_what_each_adapter_changes() -> None:
    model = two()
    model.add_weighted_adapter(["a", "b"], [0.7, -0.2], "blend")
    for layer in model.base_model.scaled_layers().values():
        wanted = 1.0 - 0.2 * (layer.scale("b") - 1.0)
        if "a" in layer.scaling:
            wanted = wanted + 0.7 * (layer.scale("a") - 1.0)
        torch.testing.assert_close(layer.scale("blend"), wanted)


def test_geometric_multiplies_the_scales() -> None:
    model = two()
    model.add_weighted_adapter(["a", "b"], [0.5, 2.0], "blend", combination_type="geometric")
    for layer in model.base_model.scaled_layers().values():
        wanted = layer.scale("b").square()
        if "a" in layer.scaling:
            wanted = wanted * layer.scale("a").sqrt()
        torch.testing.assert_close(layer.scale("blend"), wanted)


def test_the_product_with_weights_of_one_is_both_adapters_active(tmp_path: Path) -> None:
    model = two()
    model.base_model.set_adapter(["a", "b"])
    both = logits(model)
    model.add_weighted_adapter(["a", "b"], [1.0, 1.0], "blend", combination_type="geometric")
    assert torch.equal(logits(model), both)
    model.set_adapter("blend")
    torch.testing.assert_close(logits(model), both, rtol=1e-5, atol=1e-6)
    model.save_pretrained(tmp_path, selected_adapters=["blend"])
    loaded = PeftModel.from_pretrained(tiny_llama(), tmp_path / "blend")
    assert torch.equal(logits(loaded), logits(model))


def test_parts_of_fused_projections_blend() -> None:
    from tests.propulsion.tiny_models import TINY

    model = get_peft_model(TINY["bloom"].build(), PropulsionConfig(preset="key", degree=3), "a")
    model.add_adapter("b", PropulsionConfig(preset="value", degree=3))
    randomize(model)
    model.add_weighted_adapter(["a", "b"], [1.0, 1.0], "blend", combination_type="geometric")
    for layer in model.base_model.scaled_layers().values():
        torch.testing.assert_close(layer.scale("blend"), layer.scale("a") * layer.scale("b"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["a"], [1.0, 2.0], "blend"), "one weight per adapter"),
        (([], [], "blend"), "one weight per adapter"),
        ((["a", "c"], [1.0, 1.0], "blend"), "'c' does not exist"),
        ((["a", "b"], [1.0, 1.0], "a"), "'a' exists already"),
        ((["a", "b"], [1.0, 1.0], "blend", "svd"), "combination_type 'svd'"),
    ],
)
def test_wrong_arguments_are_refused(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        two().add_weighted_adapter(*arguments)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"pooling": "max"}, "pools by max"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        (
            {"preset": None, "target_modules": ["q_proj"], "feedforward_modules": ["q_proj"]},
            "input",
        ),
    ],
)
def test_adapters_that_do_not_blend_are_refused(second: dict[str, object], message: str) -> None:
    model = two(**second)
    with pytest.raises(ConfigError, match=message):
        model.add_weighted_adapter(["a", "b"], [1.0, 1.0], "blend")
    assert "blend" not in model.peft_config


def test_a_negative_scale_has_no_root() -> None:
    model = two()
    layer = model.base_model.scaled_layers()["model.layers.0.self_attn.q_proj"]
    layer.propulsion_delta["a"].data.fill_(-2.0)
    with pytest.raises(ConfigError, match="0 or negative"):
        model.add_weighted_adapter(["a", "b"], [0.5, 1.0], "blend", combination_type="geometric")
    model.add_weighted_adapter(["a", "b"], [2.0, 1.0], "blend", combination_type="geometric")
