import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

from propulsion.analysis.loading import (
    AdaptedModel,
    adapter_task,
    load_base,
    load_tokenizer,
    with_fresh_adapter,
    with_trained_adapter,
)
from propulsion.analysis.scalar_output import Task
from propulsion.errors import AdapterCorruptError, BaseMismatchError, ConfigError
from tests.propulsion.analysis.models import TINY_BASE, llama, save_adapter

TOKENS = torch.tensor([[5, 9, 300, 17]])


def logits(adapted: AdaptedModel, offsets: dict[str, torch.Tensor]) -> torch.Tensor:
    output: Any = torch.func.functional_call(adapted.model, offsets, (TOKENS,))
    result: torch.Tensor = output.logits
    return result


def changed_config(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_base_is_loaded_in_fp32_for_the_task_of_its_architecture(
    base: Path, classifier: Path
) -> None:
    for folder, expected in ((TINY_BASE, Task.CAUSAL_LM), (classifier, Task.CLASSIFICATION)):
        model, task = load_base(str(folder), None, None, seed=0)
        assert task is expected
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
        assert not model.training
    torch.testing.assert_close(
        load_base(str(base), None, None, seed=0)[0](TOKENS).logits, llama()(TOKENS).logits
    )


def test_a_head_that_the_base_lacks_depends_on_the_seed_alone(base: Path) -> None:
    torch.manual_seed(123)
    state = torch.get_rng_state()
    heads = [
        load_base(str(base), Task.CLASSIFICATION, 5, seed=seed)[0].score.weight
        for seed in (1, 1, 2)
    ]
    assert heads[0].shape[0] == 5
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    assert torch.equal(torch.get_rng_state(), state)


def test_what_is_no_base_is_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be loaded"):
        load_base(str(tmp_path / "missing"), None, None, seed=0)
    with pytest.raises(ConfigError, match=r"tokenizer of .*missing: cannot be loaded"):
        load_tokenizer(str(tmp_path / "missing"))
    config = json.loads((base / "config.json").read_text()) | {"architectures": ["LlamaModel"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=r"LlamaModel, .* --task causal-lm or classification"):
        load_base(str(tmp_path), None, None, seed=0)
    with pytest.raises(ConfigError, match=f"{tmp_path}: cannot be loaded"):
        load_base(str(tmp_path), Task.CAUSAL_LM, None, seed=0)


def test_a_fresh_adapter_is_the_base_and_has_no_trained_offsets() -> None:
    adapted = with_fresh_adapter(llama(), "attn", 15)
    assert adapted.trained is None
    assert torch.equal(logits(adapted, adapted.start), llama()(TOKENS).logits)
    assert adapted.modules == [
        f"model.layers.{block}.self_attn.{name}_proj" for block in (0, 1) for name in "qkv"
    ]
    assert not any(parameter.requires_grad for parameter in adapted.model.parameters())


def test_base_parameters_are_all_of_the_base_with_tied_ones_once() -> None:
    for tied in (True, False):
        adapted = with_fresh_adapter(llama(tied=tied), "all", 15)
        expected = sum(parameter.numel() for parameter in llama(tied=tied).parameters())
        assert sum(parameter.numel() for parameter in adapted.base.values()) == expected


def test_several_vectors_start_apart_but_zeros_are_the_base(tmp_path: Path) -> None:
    folder = save_adapter(tmp_path, llama(), num_vectors=3, pooling="max")
    adapted = with_trained_adapter(llama(), folder)
    assert all(delta.shape[0] == 3 and delta.any() for delta in adapted.start.values())
    assert not torch.equal(logits(adapted, adapted.start), llama()(TOKENS).logits)
    assert torch.equal(logits(adapted, adapted.zeros), llama()(TOKENS).logits)


def test_a_trained_adapter_is_as_peft_loads_it_and_starts_at_the_base(adapter: Path) -> None:
    adapted = with_trained_adapter(llama(), adapter)
    peft_model = PeftModel.from_pretrained(llama(), adapter)
    assert adapted.trained is not None
    assert list(adapted.trained) == list(adapted.start)
    assert torch.equal(logits(adapted, adapted.trained), peft_model(TOKENS).logits)
    assert torch.equal(logits(adapted, adapted.start), llama()(TOKENS).logits)
    assert not torch.equal(peft_model(TOKENS).logits, llama()(TOKENS).logits)


def test_a_head_that_was_trained_too_is_used_from_the_start(
    classifier: Path, tmp_path: Path
) -> None:
    tuned = llama(classes=3)
    folder = save_adapter(tmp_path, tuned, task_type="SEQ_CLS", modules_to_save=["score"])
    weights = load_file(folder / "adapter_model.safetensors")
    head = weights["base_model.model.score.weight"]
    save_file(
        weights | {"base_model.model.score.weight": 2 * head}, folder / "adapter_model.safetensors"
    )
    adapted = with_trained_adapter(llama(classes=3), folder)
    expected = 2 * llama(classes=3)(TOKENS).logits
    torch.testing.assert_close(logits(adapted, adapted.start), expected)
    # The base's own head, which is not in use, is not counted.
    num_parameters = sum(parameter.numel() for parameter in llama(classes=3).parameters())
    assert sum(parameter.numel() for parameter in adapted.base.values()) == num_parameters


@pytest.mark.parametrize(
    ("task_type", "task"),
    [("CAUSAL_LM", Task.CAUSAL_LM), ("SEQ_CLS", Task.CLASSIFICATION), (None, None)],
)
def test_an_adapter_names_its_task(tmp_path: Path, task_type: str | None, task: Task) -> None:
    save_adapter(tmp_path, llama(layers=1))
    changed_config(tmp_path, task_type=task_type)
    assert adapter_task(tmp_path) is task


def test_a_preset_that_fits_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown preset 'everything'"):
        with_fresh_adapter(llama(), "everything", 15)
    with pytest.raises(ConfigError, match="degree must be a positive integer"):
        with_fresh_adapter(llama(), "all", 0)
    blockless = llama()
    blockless.model.layers = torch.nn.ModuleList()
    with pytest.raises(ConfigError, match="preset 'mlp' does not fit this base"):
        with_fresh_adapter(blockless, "mlp", 15)


def test_an_adapter_of_another_base_is_refused(adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(BaseMismatchError, match=r"lacks, such as 'model.layers.1.mlp.down_proj'"):
        with_trained_adapter(llama(layers=1), adapter)
    with pytest.raises(BaseMismatchError, match=r"no offsets are saved for .*layers.2.self_attn"):
        with_trained_adapter(llama(layers=3), adapter)
    config = llama().config
    config.intermediate_size = 40
    wider = save_adapter(tmp_path, LlamaForCausalLM(config))
    with pytest.raises(BaseMismatchError, match=r"does not fit .* size mismatch"):
        with_trained_adapter(llama(), wider)


def test_a_head_of_another_size_or_none_is_refused(tmp_path: Path) -> None:
    folder = save_adapter(
        tmp_path, llama(classes=3), task_type="SEQ_CLS", modules_to_save=["score"]
    )
    with pytest.raises(BaseMismatchError, match=r"does not fit .* size mismatch"):
        with_trained_adapter(llama(classes=2), folder)
    weights = load_file(folder / "adapter_model.safetensors")
    del weights["base_model.model.score.weight"]
    save_file(weights, folder / "adapter_model.safetensors")
    with pytest.raises(BaseMismatchError, match="does not fit"):
        with_trained_adapter(llama(classes=3), folder)


def test_a_damaged_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AdapterCorruptError, match="no such file"):
        with_trained_adapter(llama(), tmp_path)
    with pytest.raises(AdapterCorruptError, match="no such file"):
        adapter_task(tmp_path)
