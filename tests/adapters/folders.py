"""Adapter and base model folders on disk, as PEFT and transformers write them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

PREFIX = "base_model.model.model.layers.0"
DELTA = f"{PREFIX}.self_attn.q_proj.propulsion_delta"


def write_adapter(
    folder: Path, tensors: Mapping[str, np.ndarray] | None = None, **config: Any
) -> Path:
    """A Propulsion adapter of one vector over two modules, unless told otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    if tensors is None:
        tensors = {
            DELTA: np.linspace(-0.1, 0.1, 8, dtype=np.float32).reshape(1, 8),
            f"{PREFIX}.mlp.up_proj.propulsion_delta": np.full((1, 16), 0.01, np.float32),
        }
    save_file(dict(tensors), folder / "adapter_model.safetensors")
    defaults = {
        "peft_type": "PROPULSION",
        "degree": 15,
        "num_vectors": 1,
        "pooling": "average",
        "target_modules": ["q_proj", "up_proj"],
        "base_model_name_or_path": "models/tiny",
    }
    (folder / "adapter_config.json").write_text(json.dumps({**defaults, **config}))
    return folder


def write_base(
    folder: Path,
    shards: Mapping[str, Mapping[str, np.ndarray]],
    *,
    index: bool = False,
    **config: Any,
) -> Path:
    """A base model whose weights lie in the given files; with an index naming them if asked."""
    folder.mkdir(parents=True, exist_ok=True)
    defaults = {"model_type": "llama", "hidden_size": 8, "rms_norm_eps": 1e-5}
    (folder / "config.json").write_text(json.dumps({**defaults, **config}))
    for file, tensors in shards.items():
        save_file(dict(tensors), folder / file)
    if index:
        weight_map = {name: file for file, tensors in shards.items() for name in tensors}
        text = json.dumps({"metadata": {}, "weight_map": weight_map})
        (folder / "model.safetensors.index.json").write_text(text)
    return folder


def visible(folder: Path) -> set[str]:
    """What an `ls` shows: entries that are not hidden."""
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def leftovers(folder: Path) -> list[Path]:
    """Folders and files of a publish that has not finished."""
    return [*folder.glob(".publish-*"), *folder.glob(".aliases*")]
