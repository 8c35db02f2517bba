from pathlib import Path

import pytest
import torch

from propulsion.errors import ConfigError
from propulsion.interchange.base_comparison import changed_weights
from propulsion.interchange.state_dicts import open_state_dict
from tests.propulsion.tiny_models import TINY

BASE = {"a.weight": torch.arange(6.0).reshape(2, 3) / 7, "a.bias": torch.zeros(2)}


def changed(tensors: dict[str, torch.Tensor]) -> list[str]:
    return changed_weights(tensors, BASE, tensors)


def test_what_differs_or_is_lacking_is_named() -> None:
    assert changed({**BASE}) == []
    assert changed({**BASE, "a.bias": torch.tensor([0.0, 1e-7])}) == ["a.bias"]
    assert changed({**BASE, "a.weight": torch.ones(3, 3)}) == ["a.weight"]
    assert changed({**BASE, "head.weight": torch.ones(2, 3)}) == ["head.weight"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_base_is_compared_in_the_checkpoint_s_dtype(dtype: torch.dtype) -> None:
    assert changed({name: tensor.to(dtype) for name, tensor in BASE.items()}) == []


def test_constants_and_integers_are_passed_over() -> None:
    extra = {
        "position_ids": torch.arange(3),
        "rotary.inv_freq": torch.ones(3),
        "attn.masked_bias": torch.tensor(-1e4),
    }
    assert changed({**BASE, **extra}) == []


def test_tied_weights_that_the_base_saved_once_are_not_changes() -> None:
    assert changed({**BASE, "head.weight": BASE["a.weight"].clone()}) == []
    # Zeros, which a fresh bias has too, prove nothing.
    assert changed({**BASE, "head.bias": torch.zeros(2)}) == ["head.bias"]


def test_saved_base_with_a_tied_head_is_the_model_s_own(tmp_path: Path) -> None:
    model = TINY["llama-3"].build()
    model.save_pretrained(tmp_path)
    state = model.state_dict()
    base = open_state_dict(tmp_path)
    assert "lm_head.weight" in state.keys() - base.keys()
    assert changed_weights(state, base, state) == []


def test_base_of_another_model_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"none of the checkpoint's weights, such as 'b\.weight'"):
        changed({"b.weight": torch.ones(2)})
