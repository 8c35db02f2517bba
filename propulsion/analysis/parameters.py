"""How many parameters an adapter has, from a model's configuration alone."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

from propulsion.errors import ConfigError, PropulsionError


@dataclass(frozen=True)
class ParameterCount:
    """Trainable parameters of a method on a model."""

    method: str
    trainable: int
    base: int
    by_layer: dict[str, int]
    """Trainable parameters by the layer's name within its block."""

    @property
    def percent(self) -> float:
        """Trainable parameters per 100 of the base model."""
        return 100.0 * self.trainable / self.base


def count_parameters(model: str, preset: str | None = None, **adapter: Any) -> ParameterCount:
    """Parameters of a Propulsion adapter; no weight is loaded or made.

    Args:
        model: folder with a `config.json`, or a hub name.
        preset: as in `PropulsionConfig`.
        adapter: further fields of `PropulsionConfig`.

    Raises:
        ConfigError: there is no such configuration, or the adapter does not fit it.
    """
    from propulsion.config import PropulsionConfig

    config = PropulsionConfig(preset=preset, **adapter)
    return _count(model, "Propulsion", config)


def compare_methods(model: str, preset: str | None = None, **adapter: Any) -> list[ParameterCount]:
    """Propulsion's count beside LoRA (r = 8), AdaLoRA (r = 8) and (IA)³, each counted by PEFT.

    LoRA and AdaLoRA adapt the layers of the preset; AdaLoRA starts at rank 12, PEFT's default, and
    prunes to 8. (IA)³ has layers of its own: those that PEFT takes by default. Arguments and errors
    are those of `count_parameters`.
    """
    from peft import AdaLoraConfig, IA3Config, LoraConfig

    from propulsion.config import PropulsionConfig

    own = PropulsionConfig(preset=preset, **adapter)
    counts = [_count(model, "Propulsion", own)]
    same: dict[str, Any] = {
        "target_modules": own.target_modules,
        "exclude_modules": own.exclude_modules,
    }
    counts.append(_count(model, "LoRA (r = 8)", LoraConfig(r=8, **same)))
    adalora = AdaLoraConfig(target_r=8, init_r=12, total_step=1, **same)
    counts.append(_count(model, "AdaLoRA (r = 12 to 8)", adalora))
    counts.append(_count(model, "(IA)³", IA3Config()))
    return counts


def _count(model: str, method: str, config: Any) -> ParameterCount:
    import torch
    from peft import get_peft_model

    with torch.device("meta"):
        base = _empty_model(model)
        num_base = sum(parameter.numel() for parameter in base.parameters())
        try:
            adapted = get_peft_model(base, config)
        except PropulsionError:
            raise
        except ValueError as error:
            raise ConfigError(f"{method} cannot be put on {model}: {error}") from error
    by_layer: Counter[str] = Counter()
    for name, parameter in adapted.named_parameters():
        if parameter.requires_grad:
            by_layer[_layer_name(name)] += parameter.numel()
    return ParameterCount(method, by_layer.total(), num_base, dict(by_layer))


def _layer_name(parameter: str) -> str:
    """`….layers.0.mlp.down_proj.propulsion_delta.default` is of layer `mlp.down_proj`."""
    layer = re.split(r"\.(?:propulsion|lora|ia3)_", parameter)[0].removeprefix("base_model.model.")
    return re.split(r"\.\d+\.", layer)[-1]


def _empty_model(model: str) -> Any:
    import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(model)
        for architecture in config.architectures or []:
            if hasattr(transformers, architecture):
                return getattr(transformers, architecture)(config)
        return transformers.AutoModel.from_config(config)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"{model}: no model configuration can be read there ({error}); give a folder with a "
            "config.json or a hub name"
        ) from error
