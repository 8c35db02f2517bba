import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adapters.validate import validate_folder
from propulsion.errors import AdapterCorruptError
from tests.adapters.folders import DELTA, PREFIX, write_adapter

ONES = np.ones((1, 4), np.float32)


def test_propulsion_adapter_is_described(adapter: Path) -> None:
    facts = validate_folder(adapter)
    assert facts.peft_type == "PROPULSION"
    assert facts.base_model_name_or_path == "models/tiny"
    assert facts.num_parameters == 24


def test_several_vectors_are_one_row_each(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path, {DELTA: np.ones((4, 8), np.float32)}, num_vectors=4)
    assert validate_folder(folder).num_parameters == 32


def test_other_methods_need_no_propulsion_keys(tmp_path: Path) -> None:
    weights = {f"{PREFIX}.k_proj.ia3_l": np.ones((4, 1), np.float16)}
    assert validate_folder(write_adapter(tmp_path, weights, peft_type="IA3")).peft_type == "IA3"


def test_tensors_of_listed_modules_to_save_are_allowed(tmp_path: Path) -> None:
    weights = {DELTA: ONES, "base_model.model.score.weight": np.ones((2, 8), np.float16)}
    folder = write_adapter(tmp_path, weights, modules_to_save=["score"])
    assert validate_folder(folder).num_parameters == 20


@pytest.mark.parametrize(
    ("tensors", "config", "why"),
    [
        ({}, {}, "holds no tensor"),
        ({"base_model.model.score.weight": ONES}, {"modules_to_save": ["score"]}, "no tensor ends"),
        ({DELTA: ONES.astype(np.float16)}, {}, "is F16, expected F32"),
        ({DELTA: ONES[0]}, {}, r"shape \[4\], expected \[1, d_out\]"),
        ({DELTA: ONES}, {"num_vectors": 2}, r"shape \[1, 4\], expected \[2, d_out\]"),
        ({DELTA: np.ones((1, 0), np.float32)}, {}, r"shape \[1, 0\]"),
        ({DELTA: ONES}, {"num_vectors": None}, "num_vectors is None"),
        ({DELTA: ONES}, {"num_vectors": True}, "num_vectors is True"),
        ({DELTA: ONES}, {"num_vectors": 0}, "num_vectors is 0"),
        ({DELTA: ONES}, {"modules_to_save": "score"}, "modules_to_save is not a list"),
        ({DELTA: ONES, "x.score.weight": ONES}, {}, "'x.score.weight' is neither"),
        ({DELTA: ONES, "x.my_score.w": ONES}, {"modules_to_save": ["score"]}, "is neither"),
        ({DELTA: ONES, "x.embed_tokens.weight": ONES}, {}, "save_embedding_layers=False"),
        ({DELTA: ONES * np.nan}, {}, "q_proj.propulsion_delta' holds NaN or infinity"),
        ({DELTA: ONES * np.inf}, {}, "holds NaN or infinity"),
        ({DELTA: ONES}, {"peft_type": ""}, "no peft_type"),
        ({DELTA: ONES}, {"peft_type": None}, "no peft_type"),
        ({DELTA: ONES}, {"base_model_name_or_path": 7}, "base_model_name_or_path"),
    ],
)
def test_bad_adapter_is_refused_saying_why(
    tmp_path: Path, tensors: dict[str, np.ndarray], config: dict[str, Any], why: str
) -> None:
    with pytest.raises(AdapterCorruptError, match=why):
        validate_folder(write_adapter(tmp_path, tensors, **config))


@pytest.mark.parametrize("text", ["", "{", "[]", '"PROPULSION"', "\udcff", "[" * 100_000])
def test_config_that_is_no_json_object_is_refused(adapter: Path, text: str) -> None:
    (adapter / "adapter_config.json").write_bytes(os.fsencode(text))
    with pytest.raises(AdapterCorruptError, match=r"adapter_config\.json: not "):
        validate_folder(adapter)


@pytest.mark.parametrize(
    ("file", "message"),
    [("adapter_config.json", r"no such file"), ("adapter_model.safetensors", "missing")],
)
def test_missing_file_is_named(adapter: Path, file: str, message: str) -> None:
    (adapter / file).unlink()
    with pytest.raises(AdapterCorruptError, match=f"{file}: {message}"):
        validate_folder(adapter)


def test_pickle_is_refused_with_what_to_do(adapter: Path) -> None:
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(AdapterCorruptError, match=r"never loaded.*safe_serialization=True"):
        validate_folder(adapter)


def test_truncated_weights_are_refused_with_both_sizes(adapter: Path) -> None:
    weights = adapter / "adapter_model.safetensors"
    size = weights.stat().st_size
    os.truncate(weights, size - 10)
    with pytest.raises(
        AdapterCorruptError, match=rf"{weights}: truncated: expected {size} .* found {size - 10}"
    ):
        validate_folder(adapter)


def test_pipe_in_place_of_a_file_does_not_hang(adapter: Path) -> None:
    (adapter / "adapter_model.safetensors").unlink()
    os.mkfifo(adapter / "adapter_model.safetensors")
    with pytest.raises(AdapterCorruptError, match="missing"):
        validate_folder(adapter)
