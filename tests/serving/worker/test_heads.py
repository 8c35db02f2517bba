"""Which heads an engine takes, on models that look like vLLM's."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from propulsion.errors import BaseMismatchError, HeadNotServedError
from serving.worker.heads import Heads
from serving.worker.source import blend_path
from serving.worker.targets import find_layers
from tests.adapters.folders import DELTA, write_adapter

HIDDEN = 8


class PoolerHead(nn.Module):
    def __init__(self, classifier: nn.Module):
        super().__init__()
        self.classifier = classifier


def engine(tasks: set[str], score: nn.Module | None = None, *, headless: bool = False):
    """Heads of an engine that pools for these tasks, or generates if there are none."""
    model = nn.Module()
    model.score = nn.Linear(HIDDEN, 2) if score is None else score
    if tasks:
        # As vLLM has it: LoRA's wrapper is in one head alone.
        inner = getattr(model.score, "base_layer", model.score)
        model.pooler = SimpleNamespace(
            poolers_by_task={
                task: SimpleNamespace(head=PoolerHead(model.score if task == "classify" else inner))
                for task in tasks
            },
            get_supported_tasks=lambda: tasks,
        )
    model.propulsion_lacks_head = headless
    runner = "pooling" if tasks else "generate"
    config = SimpleNamespace(model_config=SimpleNamespace(runner_type=runner))
    return Heads(model, config, num_slots=2, max_labels=3, device=torch.device("cpu")), model


def adapter(folder: Path, num_labels: int = 2, hidden: int = HIDDEN, module: str = "score") -> str:
    tensors = {
        DELTA: torch.ones(1, 4).numpy(),
        f"base_model.model.{module}.weight": torch.ones(num_labels, hidden).numpy(),
    }
    return str(write_adapter(folder, tensors, modules_to_save=[module]))


def plain(folder: Path) -> str:
    return str(write_adapter(folder))


def test_an_engine_that_classifies_takes_linear_heads_up_to_its_most_labels(tmp_path):
    heads, _ = engine({"classify", "token_classify"})
    assert heads.bank is not None
    assert heads.bank.weight.shape == (3, 3, HIDDEN)
    found = heads.of(adapter(tmp_path / "fits", num_labels=3))
    assert found is not None
    assert found.num_labels == 3
    assert heads.of(plain(tmp_path / "plain")) is None
    with pytest.raises(HeadNotServedError, match="--max-head-labels 4"):
        heads.of(adapter(tmp_path / "many", num_labels=4))


def test_a_head_of_another_width_or_name_was_not_made_for_this_base(tmp_path):
    heads, _ = engine({"classify"})
    with pytest.raises(BaseMismatchError, match=r"reads vectors of 9.* gives 8"):
        heads.of(adapter(tmp_path / "wide", hidden=9))
    with pytest.raises(BaseMismatchError, match="is 'qa_outputs', that of the served base"):
        heads.of(adapter(tmp_path / "other", module="qa_outputs"))


def test_heads_are_not_blended(tmp_path):
    heads, _ = engine({"classify"})
    head, other = adapter(tmp_path / "head"), plain(tmp_path / "plain")
    for parts in ([(head, 1.0), (other, 1.0)], [(head, 0.5)]):
        with pytest.raises(HeadNotServedError, match="cannot be blended"):
            heads.of(blend_path(parts))
    assert heads.of(blend_path([(other, 0.5)])) is None


def test_an_engine_that_generates_refuses_heads_and_says_which_takes_them(tmp_path):
    heads, _ = engine(set())
    assert heads.bank is None
    assert heads.of(plain(tmp_path / "plain")) is None
    with pytest.raises(HeadNotServedError, match="--runner pooling --convert classify"):
        heads.of(adapter(tmp_path / "head"))


def test_an_engine_that_embeds_leaves_heads_out(tmp_path):
    heads, _ = engine({"embed", "token_embed"})
    assert heads.of(adapter(tmp_path / "head")) is None


def test_only_a_single_linear_layer_can_be_stood_in_for(tmp_path):
    heads, _ = engine({"classify"}, nn.Sequential(nn.Linear(HIDDEN, HIDDEN), nn.Linear(HIDDEN, 2)))
    assert heads.bank is None
    with pytest.raises(HeadNotServedError, match="not a single linear layer"):
        heads.of(adapter(tmp_path / "head"))


def test_a_head_that_vllm_has_wrapped_for_lora_is_found(tmp_path):
    wrapper = nn.Module()
    wrapper.base_layer = nn.Linear(HIDDEN, 2)
    heads, _ = engine({"classify", "token_classify"}, wrapper)
    assert heads.of(adapter(tmp_path / "head")) is not None


def test_where_the_base_has_no_head_an_adapter_must_have_one(tmp_path):
    heads, _ = engine({"classify"}, headless=True)
    assert not heads.base_has_one
    assert heads.of(adapter(tmp_path / "head")) is not None
    with pytest.raises(HeadNotServedError, match="neither it nor the base"):
        heads.of(plain(tmp_path / "plain"))


@pytest.mark.slow
def test_a_head_runs_on_requests_so_no_scale_of_tokens_goes_to_it():
    from serving import vllm_compat

    score = vllm_compat.LinearBase.__new__(vllm_compat.LinearBase)
    nn.Module.__init__(score)
    score.input_size, score.output_size, score.output_sizes = HIDDEN, 2, None
    score.skip_bias_add, score.bias = False, None
    heads, model = engine({"classify"}, score)
    assert heads.bank is not None
    assert find_layers(model, {}) == []
    del model.pooler
    assert [layer.name for layer in find_layers(model, {})] == ["score"]
