"""LoRA adapters, which the store keeps as they are."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from adapters import AdapterStore
from adapters.validate import validate_folder
from propulsion.errors import AdapterCorruptError
from tests.adapters.folders import PREFIX, write_adapter

A, B = f"{PREFIX}.q_proj.lora_A.weight", f"{PREFIX}.q_proj.lora_B.weight"
PAIR = {A: np.ones((4, 8), np.float16), B: np.ones((8, 4), np.float16)}


class Model(nn.Module):
    """One layer of every kind that LoRA takes, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(5, 4)
        self.lin = nn.Linear(4, 6)
        self.conv = nn.Conv2d(1, 2, 3)
        self.head = nn.Linear(6, 2)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rank_pattern": {"lin": 3}},
        {"bias": "lora_only"},
        {"use_dora": True, "target_modules": ["lin"]},
        {"target_modules": [], "target_parameters": ["lin.weight"]},
    ],
    ids=str,
)
def test_what_peft_saves_is_published_and_verified(
    store: AdapterStore, tmp_path: Path, options: dict[str, Any]
) -> None:
    targets = {"target_modules": ["emb", "lin", "conv"], "modules_to_save": ["head"], "r": 2}
    config = LoraConfig(**{**targets, **options})
    get_peft_model(Model(), config).save_pretrained(tmp_path / "lora")
    version = store.verify(store.publish(tmp_path / "lora", "a"))
    assert version.manifest.peft_type == "LORA"


def test_experts_of_a_stack_hold_their_ranks_side_by_side(tmp_path: Path) -> None:
    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = nn.Parameter(torch.zeros(3, 4, 5))

    model = nn.Sequential(Experts())
    config = LoraConfig(r=2, target_modules=[], target_parameters=["0.up"])
    get_peft_model(model, config).save_pretrained(tmp_path)
    assert validate_folder(tmp_path).num_parameters > 0


@pytest.mark.parametrize(
    ("tensors", "config", "why"),
    [
        (PAIR, {"r": None}, r"adapter_config\.json: r is None"),
        (PAIR, {"r": True}, "r is True"),
        (PAIR, {"r": 8}, "do not have the rank 8"),
        (PAIR, {"r": 2, "rank_pattern": {"q_proj": 3}}, "do not have the rank 3"),
        (PAIR, {"rank_pattern": {"(": 4}}, "no regular expression"),
        (PAIR, {"rank_pattern": ["q_proj"]}, "rank_pattern does not map"),
        ({A: PAIR[A]}, {}, r"layers\.0\.q_proj' has no lora_B"),
        ({**PAIR, B: np.ones((8, 3), np.float16)}, {}, "do not have the rank 4"),
        ({**PAIR, B: np.ones((8,), np.float16)}, {}, "expected a matrix"),
        ({**PAIR, B: np.ones((0, 4), np.float16)}, {}, "expected a matrix"),
        ({**PAIR, B: np.ones((8, 4), np.int8)}, {}, "is I8, expected one of"),
        ({**PAIR, B: np.full((8, 4), np.inf, np.float16)}, {}, "holds NaN or infinity"),
        ({**PAIR, "x.lora_A.weight": PAIR[A]}, {}, "is neither"),
        ({**PAIR, f"{PREFIX}.q_proj.bias": np.ones(8)}, {}, "is neither"),
        (
            {**PAIR, "base_model.model.embed_tokens.weight": np.ones((2, 2))},
            {},
            "save_embedding_layers=False",
        ),
        ({"base_model.model.score.weight": np.ones((2, 2))}, {"modules_to_save": ["score"]}, "no"),
        (PAIR, {"modules_to_save": "score"}, "not a list of module names"),
    ],
)
def test_bad_adapter_is_refused_saying_why(
    tmp_path: Path, tensors: dict[str, np.ndarray], config: dict[str, Any], why: str
) -> None:
    folder = write_adapter(tmp_path, tensors, **{"peft_type": "LORA", "r": 4, **config})
    with pytest.raises(AdapterCorruptError, match=why):
        validate_folder(folder)
