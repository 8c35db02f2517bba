"""Puts other values into an adapter in place, without new parameters or another compilation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from propulsion.effective import SavedScale, saved_scales
from propulsion.errors import ConfigError
from propulsion.layer import PropulsionLayer


def hotswap_adapter(model: Any, folder: str | Path, adapter_name: str = "default") -> None:
    """Replace the values of a loaded adapter by those of a saved one.

    The counterpart of `peft.utils.hotswap.hotswap_adapter`, which knows LoRA alone. Parameters stay
    where they are, so a compiled model is not compiled again and an optimiser keeps its handles.
    Layers that the saved adapter does not scale go back to the base.

    Args:
        model: a `PeftModel`, compiled or not.
        folder: the saved adapter.
        adapter_name: the adapter to replace; it keeps its name.

    Raises:
        AdapterCorruptError: the saved adapter cannot be read.
        ConfigError: there is no such adapter, it is merged, or the saved one has another degree,
            number of vectors, pooling or other layers. Nothing is changed then.
    """
    layers = {
        _base_path(name): module
        for name, module in model.named_modules()
        if isinstance(module, PropulsionLayer) and adapter_name in module.scaling
    }
    if not layers:
        raise ConfigError(f"the model has no Propulsion adapter named {adapter_name!r}")
    saved = saved_scales(folder)
    unknown = sorted(saved.keys() - layers.keys())
    if unknown:
        raise ConfigError(
            f"{folder} scales {unknown[0]!r}, which adapter {adapter_name!r} does not: only an "
            "adapter of the same layers, or fewer, can take its place. Load it under another name"
        )
    values = {
        name: _new_values(name, layer, adapter_name, saved.get(name), folder)
        for name, layer in layers.items()
    }
    with torch.no_grad():
        for name, layer in layers.items():
            layer.propulsion_delta[adapter_name].copy_(values[name])


def _base_path(name: str) -> str:
    return name.removeprefix("_orig_mod.").removeprefix("base_model.model.")


def _new_values(
    name: str,
    layer: PropulsionLayer,
    adapter_name: str,
    saved: SavedScale | None,
    folder: str | Path,
) -> torch.Tensor:
    if adapter_name in layer.merged_adapters:
        raise ConfigError(
            f"adapter {adapter_name!r} is merged into the weights: call unmerge_adapter() first"
        )
    delta = layer.propulsion_delta[adapter_name]
    if saved is None:
        return torch.zeros_like(delta)
    here = layer.scaling[adapter_name]._replace(part=None)
    if saved.scaling != here:
        raise ConfigError(
            f"{folder} scales {name!r} by {saved.scaling}, adapter {adapter_name!r} by {here}: "
            "they must agree. Load it under another name"
        )
    columns = layer.columns(adapter_name)
    values = saved.delta if columns is None else saved.delta[:, columns.cpu()]
    if values.shape != delta.shape:
        raise ConfigError(
            f"{folder} has offsets of shape {tuple(saved.delta.shape)} for {name!r}, "
            f"adapter {adapter_name!r} of shape {tuple(delta.shape)}: it is of another base"
        )
    return values
