import json
from pathlib import Path

import pytest
import torch
from peft import IA3Config, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from propulsion.errors import AdapterCorruptError, ConfigError
from propulsion.interchange import export_ia3, import_ia3
from propulsion.layer import PropulsionLayer
from tests.propulsion.interchange.adapted_models import load, logits, save_ia3
from tests.propulsion.tiny_models import TINY

MODELS = ["llama-2", "gpt-2", "roberta", "t5"]


def config_of(folder: Path) -> dict[str, object]:
    return json.loads((folder / "adapter_config.json").read_text())


def edit_config(folder: Path, **values: object) -> None:
    (folder / "adapter_config.json").write_text(json.dumps({**config_of(folder), **values}))


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def write_ia3(folder: Path, tensors: dict[str, torch.Tensor], **config: object) -> None:
    folder.mkdir(exist_ok=True)
    IA3Config(**config).save_pretrained(str(folder))
    prefixed = {f"base_model.model.{name}.ia3_l": tensor for name, tensor in tensors.items()}
    save_file(prefixed, folder / "adapter_model.safetensors")


@pytest.mark.parametrize("tiny", MODELS)
def test_imported_adapter_gives_equal_logits_and_comes_back_equal(
    tiny: str, tmp_path: Path
) -> None:
    wanted = logits(save_ia3(tiny, tmp_path / "ia3"), tiny)
    import_ia3(tmp_path / "ia3", tmp_path / "propulsion")
    loaded = load(tiny, tmp_path / "propulsion")
    assert torch.equal(logits(loaded, tiny), wanted)
    assert not torch.equal(wanted, logits(TINY[tiny].build(), tiny))

    export_ia3(tmp_path / "propulsion", tmp_path / "back")
    before, after = tensors_of(tmp_path / "ia3"), tensors_of(tmp_path / "back")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert torch.equal(logits(load(tiny, tmp_path / "back"), tiny), wanted)


@pytest.mark.parametrize("tiny", MODELS)
def test_targets_are_carried_over_as_they_are(tiny: str, tmp_path: Path) -> None:
    save_ia3(tiny, tmp_path / "ia3")
    import_ia3(tmp_path / "ia3", tmp_path / "propulsion")
    export_ia3(tmp_path / "propulsion", tmp_path / "back")
    source = config_of(tmp_path / "ia3")
    assert source["feedforward_modules"]
    for folder in ("propulsion", "back"):
        found = config_of(tmp_path / folder)
        for key in ("target_modules", "feedforward_modules"):
            assert found[key] == sorted(source[key])


def test_the_paper_s_scales_of_any_size_are_kept_to_2_to_minus_24(tmp_path: Path) -> None:
    wanted = logits(save_ia3("llama-2", tmp_path / "ia3", low=-1.0, high=2.0), "llama-2")
    import_ia3(tmp_path / "ia3", tmp_path / "propulsion")
    torch.testing.assert_close(
        logits(load("llama-2", tmp_path / "propulsion"), "llama-2"), wanted, rtol=1e-5, atol=1e-6
    )
    export_ia3(tmp_path / "propulsion", tmp_path / "back")
    after = tensors_of(tmp_path / "back")
    for key, before in tensors_of(tmp_path / "ia3").items():
        assert (after[key].double() - before.double()).abs().max() <= 2**-24


def test_regexes_of_the_source_are_carried_over(tmp_path: Path) -> None:
    targets, feedforward = r".*\.(v_proj|down_proj)", r".*\.down_proj"
    source = save_ia3(
        "llama-2",
        tmp_path / "ia3",
        target_modules=targets,
        feedforward_modules=feedforward,
        exclude_modules=["0.self_attn.v_proj"],
    )
    import_ia3(tmp_path / "ia3", tmp_path / "propulsion")
    found = config_of(tmp_path / "propulsion")
    assert found["target_modules"] == targets
    assert found["feedforward_modules"] == feedforward
    assert found["exclude_modules"] == ["0.self_attn.v_proj"]
    loaded = load("llama-2", tmp_path / "propulsion")
    assert sum(isinstance(module, PropulsionLayer) for module in loaded.modules()) == 3
    assert torch.equal(logits(loaded, "llama-2"), logits(source, "llama-2"))


@pytest.mark.parametrize("edit", [{"target_modules": None}, {"feedforward_modules": None}])
def test_modules_are_named_where_the_source_leaves_them_to_a_default(
    edit: dict[str, object], tmp_path: Path
) -> None:
    wanted = logits(save_ia3("llama-2", tmp_path / "ia3"), "llama-2")
    edit_config(tmp_path / "ia3", **edit)
    import_ia3(tmp_path / "ia3", tmp_path / "propulsion")
    found = config_of(tmp_path / "propulsion")
    assert "model.layers.0.self_attn.k_proj" in found["target_modules"]
    assert found["feedforward_modules"] == [f"model.layers.{i}.mlp.down_proj" for i in (0, 1)]
    assert torch.equal(logits(load("llama-2", tmp_path / "propulsion"), "llama-2"), wanted)


class Nested(torch.nn.Module):
    """Where the end of one path is the whole of another."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc = torch.nn.Linear(4, 4)
        self.block = torch.nn.ModuleDict({"fc": torch.nn.Linear(4, 4)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block["fc"](self.fc(x))


def test_shapes_decide_what_is_scaled_where_names_cannot(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = {
        "fc": 0.5 + torch.rand(1, 4, generator=generator),
        "block.fc": 0.5 + torch.rand(4, 1, generator=generator),
    }
    write_ia3(tmp_path / "ia3", vectors, target_modules=["fc"], feedforward_modules=["fc"])
    import_ia3(tmp_path / "ia3", tmp_path / "propulsion")
    export_ia3(tmp_path / "propulsion", tmp_path / "back")
    x, model = torch.randn(3, 4, generator=generator), Nested()
    wanted = model.block["fc"](model.fc(x * vectors["fc"])) * vectors["block.fc"].T
    for folder in ("propulsion", "back"):
        found = PeftModel.from_pretrained(Nested(), tmp_path / folder)(x)
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("feedforward", [["fc"], []])
def test_configuration_decides_for_a_single_number(feedforward: list[str], tmp_path: Path) -> None:
    write_ia3(
        tmp_path / "ia3",
        {"fc": torch.ones(1, 1)},
        target_modules=["fc"],
        feedforward_modules=feedforward,
    )
    import_ia3(tmp_path / "ia3", tmp_path / "propulsion")
    assert config_of(tmp_path / "propulsion")["feedforward_modules"] == feedforward


def test_whole_modules_and_other_fields_are_carried_over(tmp_path: Path) -> None:
    source = save_ia3(
        "llama-2",
        tmp_path / "ia3",
        task_type="CAUSAL_LM",
        modules_to_save=["lm_head"],
    )
    head = source.base_model.model.lm_head.modules_to_save["default"].weight
    head.data = torch.randn(head.shape, generator=torch.Generator().manual_seed(1))
    source.save_pretrained(tmp_path / "trained")
    edit_config(tmp_path / "trained", base_model_name_or_path="org/base", revision="v2")
    wanted = logits(source, "llama-2")
    import_ia3(tmp_path / "trained", tmp_path / "propulsion")
    assert torch.equal(logits(load("llama-2", tmp_path / "propulsion"), "llama-2"), wanted)
    export_ia3(tmp_path / "propulsion", tmp_path / "back")
    assert torch.equal(logits(load("llama-2", tmp_path / "back"), "llama-2"), wanted)
    before = config_of(tmp_path / "trained")
    carried = {
        "auto_mapping": None,
        "base_model_name_or_path": "org/base",
        "inference_mode": True,
        "modules_to_save": ["lm_head"],
        "revision": "v2",
        "task_type": "CAUSAL_LM",
    }
    assert carried.items() <= before.items()
    for folder in ("propulsion", "back"):
        assert carried.items() <= config_of(tmp_path / folder).items()


def test_16_bit_vectors_are_imported(tmp_path: Path) -> None:
    save_ia3("llama-2", tmp_path / "ia3")
    path = tmp_path / "ia3" / "adapter_model.safetensors"
    narrow = {name: tensor.bfloat16() for name, tensor in load_file(path).items()}
    save_file(narrow, path)
    import_ia3(tmp_path / "ia3", tmp_path / "propulsion")
    for name, delta in tensors_of(tmp_path / "propulsion").items():
        assert delta.dtype == torch.float32
        vector = narrow[name.replace("propulsion_delta", "ia3_l")]
        assert torch.equal(1.0 + delta, vector.float().reshape(1, -1))


class Convolution(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


def test_convolution_is_refused(tmp_path: Path) -> None:
    config = IA3Config(target_modules=["conv"], feedforward_modules=[])
    get_peft_model(Convolution(), config).save_pretrained(tmp_path / "ia3")
    with pytest.raises(AdapterCorruptError, match=r"conv\.ia3_l has shape \(1, 4, 1, 1\).*convol"):
        import_ia3(tmp_path / "ia3", tmp_path / "out")


@pytest.mark.parametrize(
    "vector",
    [torch.ones(4), torch.ones(2, 4), torch.ones(0, 1), torch.ones(4, 1, dtype=torch.int32)],
    ids=["one dimension", "matrix", "empty", "integers"],
)
def test_vector_of_another_shape_or_kind_is_refused(vector: torch.Tensor, tmp_path: Path) -> None:
    write_ia3(tmp_path / "ia3", {"fc": vector}, target_modules=["fc"], feedforward_modules=[])
    with pytest.raises(AdapterCorruptError, match=r"fc\.ia3_l is torch\..* expected floats"):
        import_ia3(tmp_path / "ia3", tmp_path / "out")


def test_vector_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    vector = torch.tensor([[1.0], [float("inf")]])
    write_ia3(tmp_path / "ia3", {"fc": vector}, target_modules=["fc"], feedforward_modules=[])
    with pytest.raises(AdapterCorruptError, match=r"ia3: gives NaN or infinity in .*fc\.prop"):
        import_ia3(tmp_path / "ia3", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_module_that_is_scaled_and_saved_whole_is_refused(tmp_path: Path) -> None:
    write_ia3(
        tmp_path / "ia3",
        {"head.fc": torch.ones(4, 1)},
        target_modules=["fc"],
        feedforward_modules=[],
        modules_to_save=["head"],
    )
    with pytest.raises(AdapterCorruptError, match="scaled and in modules_to_save at once"):
        import_ia3(tmp_path / "ia3", tmp_path / "out")


def test_wrong_source_and_taken_destination_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AdapterCorruptError, match=r"adapter_config\.json: no such file"):
        import_ia3(tmp_path / "missing", tmp_path / "out")
    save_ia3("llama-2", tmp_path / "ia3")
    with pytest.raises(ConfigError, match="exists and is not an empty folder"):
        import_ia3(tmp_path / "ia3", tmp_path / "ia3")
    edit_config(tmp_path / "ia3", peft_type="LORA")
    with pytest.raises(AdapterCorruptError, match="peft_type must be 'IA3', found 'LORA'"):
        import_ia3(tmp_path / "ia3", tmp_path / "out")
