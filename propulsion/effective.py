"""From a saved adapter to the scales that serving loads."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from propulsion.errors import AdapterCorruptError
from propulsion.functional import effective_scale, scale_offset
from propulsion.registration import PEFT_TYPE

KEY_PREFIX = "base_model.model."
KEY_SUFFIX = ".propulsion_delta"


def effective_scales(folder: str | Path) -> dict[str, torch.Tensor]:
    """The scale s of every adapted layer of a saved adapter.

    Args:
        folder: a PEFT folder with `adapter_config.json` and `adapter_model.safetensors`.

    Returns:
        Module path in the base model → s, shape (d_out,), fp32.

    Raises:
        AdapterCorruptError: a file is missing, truncated or not a Propulsion adapter.
    """
    degree, deltas = _read(Path(folder))
    return {name: effective_scale(delta, degree) for name, delta in deltas.items()}


def effective_offsets(folder: str | Path) -> dict[str, torch.Tensor]:
    """As `effective_scales`, but s - 1: the rows of the z-bank, where zeros are the base."""
    degree, deltas = _read(Path(folder))
    return {name: scale_offset(delta, degree) for name, delta in deltas.items()}


def _read(folder: Path) -> tuple[int, dict[str, torch.Tensor]]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    config_path = folder / "adapter_config.json"
    weights_path = folder / "adapter_model.safetensors"
    try:
        config = json.loads(config_path.read_text(encoding="utf-8"))
        tensors = load_file(weights_path)
    except FileNotFoundError as error:
        raise AdapterCorruptError(f"{error.filename or folder}: no such file") from error
    except ValueError as error:
        raise AdapterCorruptError(f"{config_path}: not valid JSON ({error})") from error
    except SafetensorError as error:
        raise AdapterCorruptError(f"{weights_path}: not valid safetensors ({error})") from error
    if not isinstance(config, dict) or config.get("peft_type") != PEFT_TYPE:
        raise AdapterCorruptError(f"{config_path}: peft_type is not {PEFT_TYPE!r}")
    degree = config.get("degree")
    if not isinstance(degree, int) or degree < 1:
        raise AdapterCorruptError(f"{config_path}: degree must be a positive integer: {degree!r}")
    shape_error = f"{weights_path}: {{}} must have shape (num_vectors, d_out), found {{}}"
    deltas: dict[str, torch.Tensor] = {}
    for key, tensor in tensors.items():
        if not key.endswith(KEY_SUFFIX):
            continue
        if tensor.ndim != 2 or tensor.shape[0] != config.get("num_vectors", 1):
            raise AdapterCorruptError(shape_error.format(key, tuple(tensor.shape)))
        deltas[key.removeprefix(KEY_PREFIX).removesuffix(KEY_SUFFIX)] = tensor
    if not deltas:
        raise AdapterCorruptError(f"{weights_path}: holds no key that ends in {KEY_SUFFIX!r}")
    return degree, deltas
