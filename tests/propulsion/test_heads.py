"""Heads that PEFT saves beside the scales, and what is known of them."""

import json
from pathlib import Path

import pytest
import torch
from peft import get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, LlamaConfig

from propulsion import PropulsionConfig
from propulsion.errors import AdapterCorruptError, ConfigError
from propulsion.heads import saved_head, saved_labels

HIDDEN = 16


def save(folder: Path, task_type: str = "SEQ_CLS", **options) -> tuple[Path, torch.Tensor]:
    """An adapter on a tiny classifier with these options, and the weight of its head."""
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=HIDDEN,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        **options,
    )
    model = AutoModelForSequenceClassification.from_config(config)
    model = get_peft_model(model, PropulsionConfig(preset="attn", task_type=task_type))
    model.save_pretrained(folder)
    return folder, model.base_model.model.score.modules_to_save["default"].weight.detach()


def rewrite(folder: Path, tensors: dict | None = None, **settings) -> Path:
    weights = load_file(folder / "adapter_model.safetensors")
    save_file({**weights, **(tensors or {})}, folder / "adapter_model.safetensors")
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
    return folder


def test_a_classifiers_head_comes_with_the_names_of_its_labels(tmp_path: Path) -> None:
    names = {0: "bad", 1: "so-so", 2: "good"}
    folder, weight = save(tmp_path, num_labels=3, id2label=names)
    head = saved_head(folder)
    assert head is not None
    assert (head.module, head.num_labels, head.bias) == ("score", 3, None)
    assert torch.equal(head.weight, weight)
    assert head.id2label == saved_labels(folder) == names
    assert head.problem_type == "single_label_classification"
    # As JSON has it, indices are text; as the configuration has it, numbers again.
    assert PropulsionConfig.from_pretrained(folder).id2label == names


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"num_labels": 1}, "regression"),
        ({"num_labels": 2}, "single_label_classification"),
        ({"num_labels": 2, "problem_type": "regression"}, "regression"),
        ({"num_labels": 3, "problem_type": "multi_label_classification"}, None),
    ],
)
def test_what_the_outputs_are_is_the_models_word_or_follows_from_their_number(
    tmp_path: Path, options: dict, problem: str | None
) -> None:
    head = saved_head(save(tmp_path, **options)[0])
    assert head is not None
    assert head.problem_type == (problem or options["problem_type"])


def test_labels_without_names_are_numbered(tmp_path: Path) -> None:
    folder = rewrite(save(tmp_path, num_labels=2)[0], id2label=None)
    assert saved_labels(folder) == {0: "LABEL_0", 1: "LABEL_1"}


def test_an_adapter_without_whole_modules_has_no_head(tmp_path: Path) -> None:
    folder = rewrite(save(tmp_path)[0], modules_to_save=None)
    assert saved_head(folder) is None
    assert saved_labels(folder) is None


def test_what_is_no_linear_head_is_refused(tmp_path: Path) -> None:
    other = {"base_model.model.score.dense.weight": torch.ones(HIDDEN, HIDDEN)}
    folder = rewrite(save(tmp_path)[0], other)
    with pytest.raises(ConfigError, match="not a head of one linear layer"):
        saved_head(folder)
    assert saved_labels(folder) is None


@pytest.mark.parametrize(
    ("tensors", "settings", "match"),
    [
        ({"base_model.model.score.bias": torch.ones(3)}, {}, "bias of 'score'"),
        ({}, {"id2label": {"0": "one", "1": "two", "2": "three"}}, "names 3 labels.* has 2"),
        ({}, {"id2label": {"0": "one", "2": "two"}}, "every index from 0"),
        ({}, {"id2label": ["one", "two"]}, "must map indices"),
        ({}, {"problem_type": "guessing"}, "problem_type .* 'guessing'"),
    ],
)
def test_a_head_that_does_not_fit_its_configuration_is_damaged(
    tmp_path: Path, tensors: dict, settings: dict, match: str
) -> None:
    folder = rewrite(save(tmp_path)[0], tensors, **settings)
    with pytest.raises(AdapterCorruptError, match=match):
        saved_head(folder)


def test_a_configuration_with_labels_that_are_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="id2label"):
        PropulsionConfig(id2label={1: "one"})
    with pytest.raises(ConfigError, match="problem_type"):
        PropulsionConfig(problem_type="guessing")
