"""The PEFT tuner: finds the target layers and wraps them."""

from __future__ import annotations

from typing import Any

from peft.tuners.tuners_utils import BaseTuner
from torch import nn

from propulsion.config import PropulsionConfig
from propulsion.layer import PropulsionLayer
from propulsion.presets import preset_modules
from propulsion.registration import register_with_peft


class PropulsionModel(BaseTuner):
    """Puts a `PropulsionLayer` around each target layer of a frozen model.

    Made by `peft.get_peft_model(model, PropulsionConfig(...))`; see `peft.tuners.BaseTuner` for
    the methods that all tuners share.
    """

    prefix = "propulsion_"
    tuner_layer_cls = PropulsionLayer

    def _prepare_adapter_config(
        self, peft_config: PropulsionConfig, model_config: dict[str, Any]
    ) -> PropulsionConfig:
        if peft_config.target_modules is None:
            peft_config.target_modules = preset_modules(  # type: ignore[assignment]
                peft_config.preset or "attn", model_config.get("model_type", "custom")
            )
        return peft_config

    def _create_and_replace(
        self,
        peft_config: PropulsionConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        if isinstance(target, PropulsionLayer):
            target.update_layer(adapter_name, peft_config)
            return
        layer = PropulsionLayer(target, adapter_name, peft_config)
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(False)
        self._replace_module(parent, target_name, layer, target)


register_with_peft()
