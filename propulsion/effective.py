"""From a saved adapter to the scales that serving loads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from propulsion.adapter_folder import CONFIG_FILE, WEIGHTS_FILE, read_config_values
from propulsion.errors import AdapterCorruptError, ConfigError
from propulsion.functional import effective_scale, scale_offset
from propulsion.registration import PEFT_TYPE
from propulsion.scaling import Scaling, layer_scaling

if TYPE_CHECKING:
    from propulsion.config import PropulsionConfig

KEY_PREFIX = "base_model.model."
KEY_SUFFIX = ".propulsion_delta"


@dataclass(frozen=True)
class SavedScale:
    """What a saved adapter does to one layer."""

    delta: torch.Tensor
    """Offsets δ = z - 1, shape (num_vectors, d), fp32."""
    scaling: Scaling

    def scale(self) -> torch.Tensor:
        """s, shape (rows, d), fp32; see `effective_scale`."""
        return effective_scale(self.delta, self.scaling.degree, self.scaling.pooling)

    def offset(self) -> torch.Tensor:
        """s - 1, shape (rows, d), fp32: rows of the z-bank, where zeros are the base."""
        return scale_offset(self.delta, self.scaling.degree, self.scaling.pooling)


def effective_scales(folder: str | Path) -> dict[str, torch.Tensor]:
    """The scales of every adapted layer of a saved adapter.

    Args:
        folder: a PEFT folder with `adapter_config.json` and `adapter_model.safetensors`.

    Returns:
        Module path in the base model → s, shape (rows, d), fp32. One row scales the whole; the two
        of max and min pooling over several vectors scale where V ≥ 0 and where V < 0.

    Raises:
        AdapterCorruptError: a file is missing, truncated or not a Propulsion adapter.
    """
    return {name: saved.scale() for name, saved in saved_scales(folder).items()}


def saved_scales(folder: str | Path) -> dict[str, SavedScale]:
    """What a saved adapter does to every layer, by module path. Raises as `effective_scales`."""
    config = _read_config(Path(folder))
    weights_path = Path(folder) / WEIGHTS_FILE
    scales: dict[str, SavedScale] = {}
    for key, delta in _read_tensors(weights_path).items():
        if not key.endswith(KEY_SUFFIX):
            continue
        if delta.ndim != 2 or delta.shape[0] != config.num_vectors:
            raise AdapterCorruptError(
                f"{weights_path}: {key} must have shape ({config.num_vectors}, d), after "
                f"num_vectors in adapter_config.json, found {tuple(delta.shape)}"
            )
        module = key.removeprefix(KEY_PREFIX).removesuffix(KEY_SUFFIX)
        scales[module] = SavedScale(delta, layer_scaling(config, module))
    if not scales:
        raise AdapterCorruptError(f"{weights_path}: holds no key that ends in {KEY_SUFFIX!r}")
    return scales


def _read_config(folder: Path) -> PropulsionConfig:
    from propulsion.config import PropulsionConfig

    values, path = read_config_values(folder), folder / CONFIG_FILE
    if values["peft_type"] != PEFT_TYPE:
        raise AdapterCorruptError(f"{path}: peft_type is not {PEFT_TYPE!r}")
    try:
        config: PropulsionConfig = PropulsionConfig.from_peft_type(**values)  # type: ignore[no-untyped-call]
    except (ConfigError, TypeError, ValueError) as error:
        raise AdapterCorruptError(f"{path}: {error}") from error
    return config


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, torch.Tensor] = load_file(path)
    except FileNotFoundError as error:
        raise AdapterCorruptError(f"{path}: no such file") from error
    except SafetensorError as error:
        raise AdapterCorruptError(f"{path}: not valid safetensors ({error})") from error
    return tensors
