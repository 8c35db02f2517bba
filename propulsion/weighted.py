"""A new adapter blended from others."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch

from propulsion.config import PropulsionConfig
from propulsion.errors import ConfigError
from propulsion.layer import PropulsionLayer

if TYPE_CHECKING:
    from propulsion.model import PropulsionModel

Combination = Literal["linear", "geometric"]


def blend(
    offsets: Sequence[torch.Tensor], weights: Sequence[float], combination: Combination
) -> torch.Tensor:
    """Offset s - 1 of the blended scale, fp32, computed in fp64.

    Args:
        offsets: s_i - 1 of each adapter, of shapes that broadcast.
        weights: w_i of each.
        combination: "linear" is s = 1 + Σ w_i (s_i - 1), "geometric" is s = Π s_i^w_i.

    Raises:
        ConfigError: a scale has no such power: below 0 a weight that is not whole, at 0 one that
            is not positive.
    """
    wide = [offset.double() for offset in offsets]
    if combination == "linear":
        terms = [weight * offset for weight, offset in zip(weights, wide, strict=True)]
        return reduce(torch.add, terms).float()
    product = torch.ones_like(wide[0])
    for weight, offset in zip(weights, wide, strict=True):
        power = (1.0 + offset).pow(weight)
        if not power.isfinite().all():
            raise ConfigError(
                f"a scale cannot be raised to the weight {weight}: it is 0 or negative; "
                "use combination_type='linear'"
            )
        product = product * power
    return (product - 1.0).float()


def add_weighted_adapter(
    model: PropulsionModel,
    adapters: Sequence[str],
    weights: Sequence[float],
    adapter_name: str,
    combination: Combination,
) -> None:
    """See `PropulsionModel.add_weighted_adapter`."""
    _check(model, adapters, weights, adapter_name, combination)
    layers = {
        name: layer
        for name, layer in model.scaled_layers().items()
        if any(adapter in layer.scaling for adapter in adapters)
    }
    inputs = {name for name, layer in layers.items() if _scales_input(name, layer, adapters)}
    blends = {
        name: blend([layer.offset(adapter) for adapter in adapters], weights, combination)
        for name, layer in layers.items()
    }
    first = model.peft_config[adapters[0]]
    model.peft_config[adapter_name] = PropulsionConfig(
        degree=1,
        target_modules=list(layers),
        feedforward_modules=list(inputs) or None,
        task_type=first.task_type,
        base_model_name_or_path=first.base_model_name_or_path,
        inference_mode=first.inference_mode,
    )
    model.inject_adapter(model.model, adapter_name)
    for name, offset in blends.items():
        delta = layers[name].propulsion_delta[adapter_name]
        delta.data.copy_(offset)
        delta.requires_grad_(False)


def _check(
    model: PropulsionModel,
    adapters: Sequence[str],
    weights: Sequence[float],
    adapter_name: str,
    combination: str,
) -> None:
    if not adapters or len(adapters) != len(weights):
        raise ConfigError(
            f"one weight per adapter is needed, got {len(adapters)} adapters and "
            f"{len(weights)} weights"
        )
    if combination not in get_args(Combination):
        raise ConfigError(
            f"unknown combination_type {combination!r}; choose one of "
            f"{', '.join(get_args(Combination))}"
        )
    if adapter_name in model.peft_config:
        raise ConfigError(f"an adapter named {adapter_name!r} exists already; choose another name")
    for adapter in adapters:
        if adapter not in model.peft_config:
            raise ConfigError(
                f"adapter {adapter!r} does not exist; there are {', '.join(model.peft_config)}"
            )
        config: Any = model.peft_config[adapter]
        if config.num_vectors > 1 and config.pooling in ("max", "min"):
            raise ConfigError(
                f"adapter {adapter!r} pools by {config.pooling} and has two scales per output; "
                "only adapters with one can be blended"
            )
        if config.modules_to_save:
            raise ConfigError(f"adapter {adapter!r} has modules_to_save, which cannot be blended")


def _scales_input(name: str, layer: PropulsionLayer, adapters: Sequence[str]) -> bool:
    kinds = {layer.scaling[a].scales_input for a in adapters if a in layer.scaling}
    if len(kinds) > 1:
        raise ConfigError(
            f"{name}: one adapter scales its input and another its output; they cannot be blended"
        )
    return kinds.pop()
