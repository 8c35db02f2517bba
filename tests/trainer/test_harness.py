"""lm-eval on the shipped base, with a task of one local file."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from adapters import AdapterStore
from propulsion.errors import BaseMismatchError, ConfigError

pytest.importorskip("lm_eval")

from trainer.harness import PropulsionLM

BASE = str(Path(__file__).parents[2] / "examples" / "tiny_base" / "model")
REVIEWS = ["a good film", "a dull story", "it is fine", "very bad indeed", "not worth it", "a joy"]


def save_adapter(folder: Path, offset: float) -> Path:
    """An adapter on the base; it changes nothing if `offset` is 0."""
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    from propulsion import PropulsionConfig

    base = AutoModelForCausalLM.from_pretrained(BASE)
    config = PropulsionConfig(preset="all", degree=15, task_type="CAUSAL_LM")
    model = get_peft_model(base, config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "propulsion_delta" in name:
                parameter.copy_(offset * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A task of two choices and one of free text, as a user would write them."""
    folder = tmp_path_factory.mktemp("task")
    lines = (json.dumps({"text": text, "label": i % 2}) for i, text in enumerate(REVIEWS))
    (folder / "reviews.jsonl").write_text("\n".join(lines))
    common = {
        "dataset_path": "json",
        "dataset_kwargs": {
            "data_files": {"test": str(folder / "reviews.jsonl")},
            "cache_dir": str(folder / "cache"),
        },
        "test_split": "test",
        "doc_to_text": "{{text}}\nThis is",
        "num_fewshot": 0,
    }
    choice = {
        "task": "reviews",
        "output_type": "multiple_choice",
        "doc_to_choice": ["bad", "good"],
        "doc_to_target": "label",
        "metric_list": [{"metric": "acc"}],
    }
    text = {
        "task": "reviews_text",
        "output_type": "generate_until",
        "doc_to_target": "{{text}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 4, "do_sample": False},
        "metric_list": [{"metric": "exact_match"}],
    }
    return [{**common, **choice}, {**common, **text}]


def evaluate(reviews: list[dict[str, Any]], **options: Any) -> list[Any]:
    """Everything that the model said to each record of both tasks."""
    import lm_eval

    model = PropulsionLM(BASE, device="cpu", dtype="float32", batch_size=4, **options)
    found = lm_eval.simple_evaluate(model=model, tasks=[dict(task) for task in reviews])
    assert found is not None
    assert 0 <= found["results"]["reviews"]["acc,none"] <= 1
    return [
        (sample["doc_id"], sample["filtered_resps"])
        for samples in found["samples"].values()
        for sample in samples
    ]


@pytest.fixture(scope="module")
def of_the_base(reviews: Any) -> list[Any]:
    return evaluate(reviews)


@pytest.mark.slow
def test_a_fresh_adapter_gives_the_results_of_the_base(
    reviews: Any, of_the_base: list[Any], tmp_path: Path
) -> None:
    assert len(of_the_base) == 2 * len(REVIEWS)
    assert evaluate(reviews, adapter=str(save_adapter(tmp_path, 0.0))) == of_the_base


@pytest.mark.slow
def test_a_trained_adapter_of_a_store_gives_others(
    reviews: Any, of_the_base: list[Any], tmp_path: Path
) -> None:
    folder = save_adapter(tmp_path / "adapter", 0.05)
    AdapterStore(tmp_path / "store").publish(folder, "away")
    by_reference = evaluate(reviews, adapter="away@latest", store=str(tmp_path / "store"))
    assert by_reference != of_the_base
    assert by_reference == evaluate(reviews, adapter=str(folder))


def test_it_is_the_model_propulsion_of_the_harness() -> None:
    from lm_eval.api.registry import get_model

    assert get_model("propulsion") is PropulsionLM


def test_a_reference_needs_a_store() -> None:
    with pytest.raises(ConfigError, match=r"'away@latest' is no folder.*store"):
        PropulsionLM(BASE, adapter="away@latest")


def test_an_adapter_of_another_base_is_refused(tmp_path: Path) -> None:
    folder = save_adapter(tmp_path / "adapter", 0.0)
    AdapterStore(tmp_path / "store").publish(folder, "other", base_fingerprint="sha256:" + "0" * 64)
    with pytest.raises(BaseMismatchError, match="other@v1"):
        PropulsionLM(BASE, adapter="other", store=str(tmp_path / "store"))
