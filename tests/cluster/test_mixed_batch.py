"""The demo's check of mixed batches, on the shipped base and adapters that change its answers."""

from pathlib import Path

import pytest
import torch
from peft import get_peft_model
from transformers import AutoModelForCausalLM

from adapters import AdapterStore, AdapterVersion, base_fingerprint
from cluster import mixed_batch
from propulsion import PropulsionConfig

pytestmark = pytest.mark.slow

BASE = Path(__file__).parents[2] / "examples" / "tiny_base" / "model"
PROMPTS = [
    "the movie is",
    "a gorgeous , witty",
    "Which of these is a source of energy?",
    "There are 7 crayons in the drawer .",
]


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> list[AdapterVersion]:
    folder = tmp_path_factory.mktemp("adapters")
    store = AdapterStore(folder / "store")
    for name, preset, degree in (("first", "all", 15), ("second", "attn", 3), ("third", "mlp", 1)):
        model = get_peft_model(
            AutoModelForCausalLM.from_pretrained(BASE),
            PropulsionConfig(preset=preset, degree=degree, task_type="CAUSAL_LM"),
        )
        generator = torch.Generator().manual_seed(degree)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3 / degree
        model.save_pretrained(folder / name)
        store.publish(folder / name, name, base_fingerprint=base_fingerprint(BASE))
    return [store.verify(name) for name in store.names()]


def test_mixed_batch_equals_each_adapter_alone(
    versions: list[AdapterVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone: list[list[list[int]]] = []
    original = mixed_batch._alone

    def remember(base, requests):
        alone.append(original(base, requests))
        return alone[-1]

    monkeypatch.setattr(mixed_batch, "_alone", remember)
    prompts = dict.fromkeys(("", *(version.name for version in versions)), PROMPTS)
    result = mixed_batch.compare_mixed_batch(str(BASE), versions, prompts)
    assert (result.num_equal, result.num_requests, result.matches) == (16, 16, True)
    # Were any two of them alike, the comparison would prove less than it says.
    by_adapter = {str(alone[0][i : i + 4]) for i in range(0, 16, 4)}
    assert len(by_adapter) == 4


def test_one_other_token_is_no_match(
    versions: list[AdapterVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mixed_batch, "_mixed", lambda base, requests: [[1], [2], [3]])
    monkeypatch.setattr(mixed_batch, "_alone", lambda base, requests: [[1], [2, 5], [3]])
    prompts = {"": ["a"], "first": ["b", "c"]}
    result = mixed_batch.compare_mixed_batch(str(BASE), versions[:1], prompts)
    assert (result.num_equal, result.num_requests, result.matches) == (2, 3, False)
