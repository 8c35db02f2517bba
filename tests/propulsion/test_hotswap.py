from pathlib import Path

import pytest
import torch
from peft import PeftModel, get_peft_model

from propulsion import PropulsionConfig, hotswap_adapter
from propulsion.errors import AdapterCorruptError, ConfigError
from tests.propulsion.adapters import randomize
from tests.propulsion.tiny_llama import tiny_llama, tokens
from tests.propulsion.tiny_models import TINY


def saved(folder: Path, seed: int, **config: object) -> Path:
    model = get_peft_model(tiny_llama(), PropulsionConfig(**{"preset": "all", **config}))
    randomize(model, seed)
    model.save_pretrained(folder)
    return folder


@torch.inference_mode()
def logits(model: torch.nn.Module) -> torch.Tensor:
    return model(input_ids=tokens()).logits


def loaded(folder: Path) -> PeftModel:
    return PeftModel.from_pretrained(tiny_llama(), folder)


def test_another_adapter_takes_the_place_in_the_same_parameters(tmp_path: Path) -> None:
    first, second = saved(tmp_path / "1", 1), saved(tmp_path / "2", 2)
    model = loaded(first)
    parameters = {id(p) for p in model.parameters()}
    hotswap_adapter(model, second)
    assert {id(p) for p in model.parameters()} == parameters
    assert torch.equal(logits(model), logits(loaded(second)))


def test_layers_that_the_new_adapter_leaves_alone_go_back_to_the_base(tmp_path: Path) -> None:
    first, second = saved(tmp_path / "1", 1), saved(tmp_path / "2", 2, preset="attn")
    model = loaded(first)
    hotswap_adapter(model, second)
    assert torch.equal(logits(model), logits(loaded(second)))


def test_a_compiled_model_is_not_compiled_again(tmp_path: Path) -> None:
    first, second = saved(tmp_path / "1", 1), saved(tmp_path / "2", 2)
    model = loaded(first)
    compiled = torch.compile(model, backend="aot_eager")
    before = logits(compiled)
    torch.testing.assert_close(before, logits(loaded(first)))
    hotswap_adapter(compiled, second)
    with torch.compiler.set_stance("fail_on_recompile"):
        after = logits(compiled)
    torch.testing.assert_close(after, logits(loaded(second)))


def test_a_part_of_a_fused_projection_is_swapped(tmp_path: Path) -> None:
    tiny = TINY["gpt-2"]
    for seed in (1, 2):
        model = get_peft_model(tiny.build(), PropulsionConfig(preset="value"))
        randomize(model, seed)
        model.save_pretrained(tmp_path / str(seed))
    swapped = PeftModel.from_pretrained(tiny.build(), tmp_path / "1")
    hotswap_adapter(swapped, tmp_path / "2")
    with torch.inference_mode():
        assert torch.equal(swapped(**tiny.inputs()).logits, model(**tiny.inputs()).logits)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"degree": 3}, "they must agree"),
        ({"num_vectors": 2}, "they must agree"),
        ({"target_modules": ["embed_tokens"]}, "embed_tokens"),
    ],
)
def test_an_adapter_of_another_kind_is_refused(
    config: dict[str, object], message: str, tmp_path: Path
) -> None:
    model = loaded(saved(tmp_path / "1", 1))
    before = logits(model)
    with pytest.raises(ConfigError, match=message):
        hotswap_adapter(model, saved(tmp_path / "2", 2, **config))
    assert torch.equal(logits(model), before)


def test_unknown_names_merged_adapters_and_missing_files_are_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path / "1", 1)
    model = loaded(folder)
    with pytest.raises(ConfigError, match="no Propulsion adapter named 'other'"):
        hotswap_adapter(model, folder, "other")
    with pytest.raises(AdapterCorruptError, match="no such file"):
        hotswap_adapter(model, tmp_path / "missing")
    model.merge_adapter()
    with pytest.raises(ConfigError, match="unmerge_adapter"):
        hotswap_adapter(model, folder)
