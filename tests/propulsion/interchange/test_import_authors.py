import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

from propulsion import effective_scales
from propulsion.errors import AdapterCorruptError, ConfigError
from propulsion.interchange import import_authors
from propulsion.layer import PropulsionLayer
from tests.propulsion.interchange.adapted_models import load, logits
from tests.propulsion.interchange.authors_modules import randomize, replace_layers
from tests.propulsion.tiny_models import TINY

HEAD = ("classifier",)


def trained(tiny: str, degree: int, *targets: str, **layout: Any) -> torch.nn.Module:
    model = replace_layers(TINY[tiny].build(), degree, targets, **layout)
    randomize(model)
    return model


def classifier(seed: int = 0) -> PreTrainedModel:
    """A RoBERTa whose body is always the same, with a head of its own."""
    config = AutoConfig.for_model("roberta", **TINY["roberta"].config, vocab_size=99)
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_config(config, attn_implementation="eager")
    model.roberta.load_state_dict(TINY["roberta"].build().roberta.state_dict())
    return model.eval()


@torch.inference_mode()
def classes(model: torch.nn.Module) -> torch.Tensor:
    inputs = TINY["roberta"].inputs()
    del inputs["labels"]
    return model(**inputs).logits


def config_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "adapter_config.json").read_text())


@pytest.mark.parametrize("layout", ["linear", "prop_linear", "flat"])
@pytest.mark.parametrize("degree", [5, 15])
def test_linear_layers_of_every_layout(layout: str, degree: int, tmp_path: Path) -> None:
    model = trained("llama-2", degree, "q_proj", "down_proj", layout=layout)
    import_authors(model.state_dict(), tmp_path / "out", degree=degree)
    loaded = load("llama-2", tmp_path / "out")
    assert torch.equal(logits(loaded, "llama-2"), logits(model, "llama-2"))
    assert sum(isinstance(module, PropulsionLayer) for module in loaded.modules()) == 4


@pytest.mark.parametrize("tiny", ["roberta", "llama-2", "gpt-neox"])
def test_all_linear_layers_and_embeddings(tiny: str, tmp_path: Path) -> None:
    model = trained(tiny, 3)
    import_authors(model.state_dict(), tmp_path / "out", degree=3)
    assert torch.equal(logits(load(tiny, tmp_path / "out"), tiny), logits(model, tiny))


def test_model_saved_by_transformers_is_imported(tmp_path: Path) -> None:
    model = trained("llama-3", 5, "q_proj", "embed_tokens")
    model.save_pretrained(tmp_path / "model")
    TINY["llama-3"].build().save_pretrained(tmp_path / "base")
    import_authors(tmp_path / "model", tmp_path / "out", degree=5, base=tmp_path / "base")
    loaded = load("llama-3", tmp_path / "out")
    assert torch.equal(logits(loaded, "llama-3"), logits(model, "llama-3"))


def test_layer_norms_have_a_degree_of_their_own(tmp_path: Path) -> None:
    model = trained("bert", 15, "query", norms=True)
    import_authors(model.state_dict(), tmp_path / "out", degree=15)
    loaded = load("bert", tmp_path / "out")
    assert torch.equal(logits(loaded, "bert"), logits(model, "bert"))
    config = config_of(tmp_path / "out")
    assert config["degree"] == 15
    assert set(config["degree_pattern"].values()) == {1}
    degrees = {
        name.rpartition(".")[2]: module.scaling["default"].degree
        for name, module in loaded.named_modules()
        if isinstance(module, PropulsionLayer)
    }
    assert degrees == {"query": 15, "LayerNorm": 1}


def test_a_pattern_of_one_norm_does_not_match_longer_paths(tmp_path: Path) -> None:
    tensors = {
        "norm.layer_norm.weight": torch.ones(4),
        "norm.propulsion": torch.full((4,), 2.0),
        "block.norm.linear.weight": torch.ones(4, 4),
        "block.norm.propulsion": torch.full((4,), 2.0),
    }
    import_authors(tensors, tmp_path / "out", degree=3, layer_norm_degree=2)
    found = {name: scale[0, 0].item() for name, scale in effective_scales(tmp_path / "out").items()}
    assert found == {"norm": 4.0, "block.norm": 8.0}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_z_of_any_dtype_becomes_fp32_offsets(dtype: torch.dtype, tmp_path: Path) -> None:
    model = trained("llama-2", 15, "q_proj")
    state = {name: tensor.to(dtype) for name, tensor in model.state_dict().items()}
    import_authors(state, tmp_path / "out", degree=15)
    for name, delta in load_file(tmp_path / "out" / "adapter_model.safetensors").items():
        module = name.removeprefix("base_model.model.").removesuffix("_delta")
        assert delta.dtype == torch.float32
        assert torch.equal(1.0 + delta[0], state[module].float())


def test_configuration_is_what_was_asked_for(tmp_path: Path) -> None:
    model = trained("llama-2", 5, "q_proj")
    import_authors(
        model.state_dict(),
        tmp_path / "out",
        degree=5,
        base_model_name_or_path="org/base",
        task_type="CAUSAL_LM",
    )
    wanted = {
        "base_model_name_or_path": "org/base",
        "degree": 5,
        "degree_pattern": {},
        "inference_mode": True,
        "modules_to_save": None,
        "num_vectors": 1,
        "peft_type": "PROPULSION",
        "target_modules": [f"model.layers.{i}.self_attn.q_proj" for i in (0, 1)],
        "task_type": "CAUSAL_LM",
    }
    assert wanted.items() <= config_of(tmp_path / "out").items()


def test_untrained_head_is_found_and_carried_with_its_scale(tmp_path: Path) -> None:
    model = replace_layers(classifier(seed=1), 5)
    randomize(model)
    classifier().save_pretrained(tmp_path / "base")
    with pytest.raises(ConfigError, match=r"2 weights .* \(0 of them biases\).*classifier\.dense"):
        import_authors(model.state_dict(), tmp_path / "out", degree=5, base=tmp_path / "base")
    import_authors(
        model.state_dict(),
        tmp_path / "out",
        degree=5,
        base=tmp_path / "base",
        modules_to_save=HEAD,
        task_type="SEQ_CLS",
    )
    loaded = PeftModel.from_pretrained(classifier(), tmp_path / "out").eval()
    torch.testing.assert_close(classes(loaded), classes(model), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(classes(loaded), classes(classifier(seed=1)), rtol=1e-3)
    names = load_file(tmp_path / "out" / "adapter_model.safetensors").keys()
    heads = {name.removeprefix("base_model.model.") for name in names if "classifier" in name}
    kinds = ("dense.bias", "dense.weight", "out_proj.bias", "out_proj.weight")
    assert heads == {f"classifier.{kind}" for kind in kinds}


def test_trained_biases_are_found_and_carried_in_whole_layers(tmp_path: Path) -> None:
    model = replace_layers(classifier(seed=1), 5, ["query", "value"])
    randomize(model)
    for name, parameter in model.named_parameters():
        if name.endswith("query.linear.bias"):
            parameter.data += 0.1
    base = classifier(seed=1)
    with pytest.raises(ConfigError, match=r"2 weights of .* \(2 of them biases\).*query\.bias"):
        import_authors(model.state_dict(), tmp_path / "out", degree=5, base=base.state_dict())
    import_authors(
        model.state_dict(),
        tmp_path / "out",
        degree=5,
        base=base.state_dict(),
        modules_to_save=["query"],
    )
    loaded = PeftModel.from_pretrained(classifier(seed=1), tmp_path / "out").eval()
    torch.testing.assert_close(classes(loaded), classes(model), rtol=1e-5, atol=1e-6)
    scaled = [m for m in loaded.modules() if isinstance(m, PropulsionLayer)]
    assert len(scaled) == 2


def test_whole_embeddings_and_norms_get_their_scale(tmp_path: Path) -> None:
    model = trained("bert", 3, "word_embeddings", "query", norms=True)
    modules = ["embeddings.LayerNorm", "word_embeddings"]
    import_authors(model.state_dict(), tmp_path / "out", degree=3, modules_to_save=modules)
    loaded = load("bert", tmp_path / "out")
    torch.testing.assert_close(logits(loaded, "bert"), logits(model, "bert"), rtol=1e-5, atol=1e-6)


def test_without_a_base_a_warning_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = trained("llama-2", 5, "q_proj")
    with caplog.at_level(logging.WARNING):
        import_authors(
            model.state_dict(), tmp_path / "a", degree=5, base=TINY["llama-2"].build().state_dict()
        )
        assert not caplog.records
        import_authors(model.state_dict(), tmp_path / "b", degree=5)
    assert "No base was given" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"degree": 0}, "degree must be a positive integer"),
        ({"task_type": "NONSENSE"}, "Invalid task type"),
        ({"modules_to_save": ["heda"]}, "has no module named 'heda'"),
        ({"modules_to_save": ["model"]}, "no scale is left"),
        ({"modules_to_save": ["q_proj"]}, "no scale is left"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    state = trained("llama-2", 5, "q_proj").state_dict()
    with pytest.raises(ConfigError, match=message):
        import_authors(state, tmp_path / "out", **{"degree": 5, **options})
    assert not (tmp_path / "out").exists()


def test_z_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    state = trained("llama-2", 5, "q_proj").state_dict()
    state["model.layers.0.self_attn.q_proj.propulsion"][3] = float("nan")
    with pytest.raises(AdapterCorruptError, match=r"the checkpoint: gives NaN .*0\.self_attn\.q_"):
        import_authors(state, tmp_path / "out", degree=5)


def test_taken_destination_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "file").write_text("")
    with pytest.raises(ConfigError, match="exists and is not an empty folder"):
        import_authors(tmp_path / "missing", tmp_path / "out", degree=5)
