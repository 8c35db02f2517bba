import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adapters import base_fingerprint
from propulsion.errors import ConfigError
from tests.adapters.folders import write_base

EMBED = np.arange(4096, dtype=np.float32).reshape(64, 64)
NORM = np.ones(8, np.float16)
WEIGHTS = {"model.embed.weight": EMBED, "model.norm.weight": NORM}
# Manifests keep fingerprints for ever: a change of this value orphans every published adapter.
GOLDEN = "sha256:29a5fab94b9e22672869f06a9997817079901db847225a172a40790a6948fe74"


def fingerprint(folder: Path, weights: dict[str, np.ndarray] = WEIGHTS, **config: Any) -> str:
    return base_fingerprint(write_base(folder, {"model.safetensors": weights}, **config))


def test_value_never_changes(tmp_path: Path) -> None:
    assert fingerprint(tmp_path) == GOLDEN


@pytest.mark.parametrize("index", [True, False])
def test_shards_do_not_matter(tmp_path: Path, index: bool) -> None:
    shards = {
        "model-00001-of-00002.safetensors": {"model.norm.weight": NORM},
        "model-00002-of-00002.safetensors": {"model.embed.weight": EMBED},
    }
    assert base_fingerprint(write_base(tmp_path, shards, index=index)) == GOLDEN


def test_weights_stored_a_second_time_do_not_matter(tmp_path: Path) -> None:
    write_base(tmp_path, {"model-1.safetensors": WEIGHTS}, index=True)
    write_base(tmp_path, {"consolidated.safetensors": {"tok_embeddings.weight": EMBED}})
    assert base_fingerprint(tmp_path) == GOLDEN


def test_shards_beside_the_whole_model_do_not_matter(tmp_path: Path) -> None:
    write_base(tmp_path, {"model-1.safetensors": {"stale": EMBED}}, index=True)
    write_base(tmp_path, {"model.safetensors": WEIGHTS})
    assert base_fingerprint(tmp_path) == GOLDEN


def test_symbolic_links_of_a_hub_cache_are_followed(tmp_path: Path) -> None:
    blobs = write_base(tmp_path / "blobs", {"model.safetensors": WEIGHTS})
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for blob in blobs.iterdir():
        (snapshot / blob.name).symlink_to(blob)
    assert base_fingerprint(snapshot) == GOLDEN


def test_keys_that_leave_the_function_alone_do_not_matter(tmp_path: Path) -> None:
    bookkeeping = {"_name_or_path": "x", "torch_dtype": "bfloat16", "use_cache": False}
    assert fingerprint(tmp_path, transformers_version="5.0", dtype="float16", **bookkeeping) == (
        GOLDEN
    )
    nested = fingerprint(tmp_path / "a", text_config={"hidden_size": 4, "dtype": "float16"})
    assert nested == fingerprint(tmp_path / "b", text_config={"hidden_size": 4})


def test_keys_that_change_the_function_matter(tmp_path: Path) -> None:
    assert fingerprint(tmp_path / "a", rms_norm_eps=1e-6) != GOLDEN
    assert fingerprint(tmp_path / "b", rope_theta=5e5) != GOLDEN
    assert fingerprint(tmp_path / "c", text_config={"hidden_act": "gelu"}) != GOLDEN


@pytest.mark.parametrize("value", [0, 2048, 4095])
def test_start_middle_and_end_of_a_tensor_matter(tmp_path: Path, value: int) -> None:
    changed = EMBED.copy()
    changed.flat[value] += 1
    assert fingerprint(tmp_path, {**WEIGHTS, "model.embed.weight": changed}) != GOLDEN


def test_every_byte_of_a_small_tensor_matters(tmp_path: Path) -> None:
    small = np.zeros(3 * 512, np.uint8)
    seen = set()
    for position in range(0, small.size, 97):
        changed = small.copy()
        changed[position] = 1
        seen.add(fingerprint(tmp_path, {"a": changed}))
    assert len(seen) == len(range(0, small.size, 97))


@pytest.mark.parametrize(
    "change",
    [
        lambda weights: {**weights, "model.norm.bias": NORM},
        lambda weights: {"model.embed.weight": EMBED},
        lambda weights: {"model.embed.weight": EMBED, "model.norm2.weight": NORM},
        lambda weights: {**weights, "model.norm.weight": NORM.reshape(2, 4)},
        lambda weights: {**weights, "model.norm.weight": NORM.view(np.int16)},
    ],
    ids=["added", "removed", "renamed", "reshaped", "other dtype"],
)
def test_tensor_names_shapes_and_dtypes_matter(
    tmp_path: Path, change: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]
) -> None:
    assert fingerprint(tmp_path, change(WEIGHTS)) != GOLDEN


def test_model_saved_again_in_shards_by_transformers_keeps_its_fingerprint(tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        vocab_size=100,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "one")
    model = LlamaForCausalLM.from_pretrained(tmp_path / "one")
    model.save_pretrained(tmp_path / "many", max_shard_size="20KB")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 1
    assert base_fingerprint(tmp_path / "many") == base_fingerprint(tmp_path / "one")


def test_folder_without_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.json is missing"):
        base_fingerprint(tmp_path / "meta-llama" / "Llama-3-8B")


def test_folder_without_safetensors_is_refused(tmp_path: Path) -> None:
    write_base(tmp_path, {})
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ConfigError, match=r"holds no \*\.safetensors"):
        base_fingerprint(tmp_path)


def test_config_that_is_no_json_is_refused(tmp_path: Path) -> None:
    write_base(tmp_path, {"model.safetensors": WEIGHTS})
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"config\.json is not JSON"):
        base_fingerprint(tmp_path)


def test_truncated_shard_is_named(tmp_path: Path) -> None:
    write_base(tmp_path, {"model.safetensors": WEIGHTS})
    os.truncate(tmp_path / "model.safetensors", 500)
    with pytest.raises(ConfigError, match=r"model\.safetensors: truncated: expected .* found 500"):
        base_fingerprint(tmp_path)


def test_shard_missing_from_a_broken_download_is_named(tmp_path: Path) -> None:
    shards = {f"model-{i}.safetensors": {f"layer.{i}": NORM} for i in (1, 2)}
    write_base(tmp_path, shards, index=True)
    (tmp_path / "model-2.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"model-2\.safetensors is missing"):
        base_fingerprint(tmp_path)


@pytest.mark.parametrize("index", [[], {}, {"weight_map": []}, {"weight_map": {"a": 1}}])
def test_malformed_index_is_refused(tmp_path: Path, index: Any) -> None:
    write_base(tmp_path, {})
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ConfigError, match="is not an index"):
        base_fingerprint(tmp_path)
