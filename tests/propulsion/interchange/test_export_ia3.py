import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from peft.tuners.ia3 import IA3Layer
from safetensors.torch import load_file, save_file

from propulsion import PropulsionConfig, effective_scales
from propulsion.errors import AdapterCorruptError, ConfigError
from propulsion.interchange import export_ia3
from tests.propulsion.adapters import randomize
from tests.propulsion.interchange.adapted_models import load, logits, save_propulsion

FEEDFORWARD = {
    "llama-2": (["k_proj", "down_proj"], ["down_proj"]),
    "gpt-2": (["attn.c_attn", "mlp.c_proj"], ["mlp.c_proj"]),
    "bert": (["value", "output.dense"], ["output.dense"]),
    "t5": (["SelfAttention.v", "wo"], ["wo"]),
}


def targets_of(folder: Path) -> dict[str, Any]:
    config = json.loads((folder / "adapter_config.json").read_text())
    names = ("target_modules", "feedforward_modules", "exclude_modules")
    return {name: config[name] for name in names}


@pytest.mark.parametrize("tiny", FEEDFORWARD)
@pytest.mark.parametrize(
    "scaling",
    [
        {"degree": 15},
        {"degree": 4, "num_vectors": 3, "pooling": "mean"},
        {"degree": 3, "num_vectors": 2, "pooling": "l2"},
        {"degree": 2, "num_vectors": 1, "pooling": "max"},
    ],
    ids=["degree 15", "mean", "l2", "max of one"],
)
def test_exported_adapter_gives_equal_logits(
    tiny: str, scaling: dict[str, Any], tmp_path: Path
) -> None:
    targets, feedforward = FEEDFORWARD[tiny]
    source = save_propulsion(
        tiny,
        tmp_path / "propulsion",
        target_modules=targets,
        feedforward_modules=feedforward,
        **scaling,
    )
    export_ia3(tmp_path / "propulsion", tmp_path / "ia3")
    loaded = load(tiny, tmp_path / "ia3")
    assert torch.equal(logits(loaded, tiny), logits(source, tiny))
    assert targets_of(tmp_path / "ia3") == {
        "target_modules": sorted(targets),
        "feedforward_modules": feedforward,
        "exclude_modules": None,
    }


def test_vectors_are_the_effective_scales(tmp_path: Path) -> None:
    save_propulsion(
        "llama-2",
        tmp_path / "propulsion",
        preset="all",
        degree_pattern={"k_proj": 3},
        feedforward_modules=["down_proj"],
    )
    export_ia3(tmp_path / "propulsion", tmp_path / "ia3")
    tensors = load_file(tmp_path / "ia3" / "adapter_model.safetensors")
    scales = effective_scales(tmp_path / "propulsion")
    assert len(tensors) == len(scales)
    for name, scale in scales.items():
        vector = tensors[f"base_model.model.{name}.ia3_l"]
        assert vector.dtype == torch.float32
        is_input = name.endswith("down_proj")
        assert torch.equal(vector, scale if is_input else scale.T)


@pytest.mark.parametrize("preset", ["attn", "mlp", "all", "key"])
@pytest.mark.parametrize("tiny", ["gpt-2", "bert", "bloom"])
def test_presets_are_exported(preset: str, tiny: str, tmp_path: Path) -> None:
    source = save_propulsion(tiny, tmp_path / "propulsion", preset=preset)
    export_ia3(tmp_path / "propulsion", tmp_path / "ia3")
    loaded = load(tiny, tmp_path / "ia3")
    assert torch.equal(logits(loaded, tiny), logits(source, tiny))
    scaled = sum(isinstance(module, IA3Layer) for module in loaded.modules())
    assert scaled == len(effective_scales(tmp_path / "propulsion"))


def test_modules_are_named_where_ia3_has_no_words_for_the_targets(tmp_path: Path) -> None:
    source = save_propulsion(
        "llama-2", tmp_path / "propulsion", preset="attn", layers_to_transform=[1]
    )
    export_ia3(tmp_path / "propulsion", tmp_path / "ia3")
    found = targets_of(tmp_path / "ia3")
    names = [f"model.layers.1.self_attn.{name}_proj" for name in "kqv"]
    assert found["target_modules"] == names
    assert found["feedforward_modules"] == []
    loaded = load("llama-2", tmp_path / "ia3")
    assert torch.equal(logits(loaded, "llama-2"), logits(source, "llama-2"))


def test_inputs_are_named_where_the_lists_differ_in_words(tmp_path: Path) -> None:
    source = save_propulsion(
        "llama-2",
        tmp_path / "propulsion",
        target_modules=["mlp.down_proj", "k_proj"],
        feedforward_modules=["down_proj"],
    )
    export_ia3(tmp_path / "propulsion", tmp_path / "ia3")
    found = targets_of(tmp_path / "ia3")
    assert found["feedforward_modules"] == [f"model.layers.{i}.mlp.down_proj" for i in (0, 1)]
    loaded = load("llama-2", tmp_path / "ia3")
    assert torch.equal(logits(loaded, "llama-2"), logits(source, "llama-2"))


def test_inputs_are_a_regex_where_names_end_alike(tmp_path: Path) -> None:
    def build() -> torch.nn.Module:
        torch.manual_seed(0)
        return torch.nn.Sequential(*(torch.nn.Linear(4, 4) for _ in range(11)))

    config = PropulsionConfig(target_modules=["0", "10"], feedforward_modules=["0"], degree=2)
    source = get_peft_model(build(), config)
    randomize(source)
    source.save_pretrained(tmp_path / "propulsion")
    export_ia3(tmp_path / "propulsion", tmp_path / "ia3")
    assert targets_of(tmp_path / "ia3")["feedforward_modules"] == "0"
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(PeftModel.from_pretrained(build(), tmp_path / "ia3")(x), source(x))


@pytest.mark.parametrize("pooling", ["max", "min"])
def test_pairs_of_scales_are_refused(pooling: str, tmp_path: Path) -> None:
    save_propulsion("llama-2", tmp_path / "propulsion", num_vectors=2, pooling=pooling)
    with pytest.raises(ConfigError, match=f"pools by {pooling}.*one scale per output"):
        export_ia3(tmp_path / "propulsion", tmp_path / "ia3")
    assert not (tmp_path / "ia3").exists()


@pytest.mark.parametrize(
    ("tiny", "target", "kind"),
    [
        ("llama-2", "norm", "a normalisation"),
        ("llama-2", "input_layernorm", "a normalisation"),
        ("gpt-2", "ln_f", "a normalisation"),
        ("gpt-2", "wte", "an embedding"),
        ("gpt-2", "wpe", "an embedding"),
        ("bert", "LayerNorm", "a normalisation"),
        ("bert", "word_embeddings", "an embedding"),
        ("gpt-neox", "embed_in", "an embedding"),
        ("t5", "shared", "an embedding"),
    ],
)
def test_embeddings_and_norms_are_refused(
    tiny: str, target: str, kind: str, tmp_path: Path
) -> None:
    save_propulsion(tiny, tmp_path / "propulsion", target_modules=[target])
    with pytest.raises(ConfigError, match=f"scales '.*{target}', which by its name is {kind}"):
        export_ia3(tmp_path / "propulsion", tmp_path / "ia3")


def test_scale_that_overflows_is_refused(tmp_path: Path) -> None:
    save_propulsion("llama-2", tmp_path / "propulsion", preset="attn")
    path = tmp_path / "propulsion" / "adapter_model.safetensors"
    save_file({name: tensor + 1e4 for name, tensor in load_file(path).items()}, path)
    with pytest.raises(AdapterCorruptError, match=r"gives NaN or infinity in .*ia3_l"):
        export_ia3(tmp_path / "propulsion", tmp_path / "ia3")


def test_wrong_source_and_taken_destination_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AdapterCorruptError, match=r"adapter_config\.json"):
        export_ia3(tmp_path / "missing", tmp_path / "out")
    save_propulsion("llama-2", tmp_path / "propulsion")
    with pytest.raises(ConfigError, match="exists and is not an empty folder"):
        export_ia3(tmp_path / "propulsion", tmp_path / "propulsion")
