"""The PEFT tuner: finds the target layers and wraps them."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTuner
from peft.utils import resolve_quantization_backend
from peft.utils.constants import EMBEDDING_LAYER_NAMES
from peft.utils.quantization_utils import get_quantization_kwargs
from torch import nn

from propulsion import fused_state, weighted
from propulsion.architectures import (
    ARCHITECTURES,
    Architecture,
    ends_with_any,
    fused_qkv_columns,
)
from propulsion.batch_context import mixed_forward
from propulsion.config import PropulsionConfig
from propulsion.errors import ConfigError
from propulsion.heads import LABELLED_TASKS, label_names
from propulsion.layer import PropulsionLayer
from propulsion.mixed_batch import BASE, MixedBatch
from propulsion.presets import exclude_also, preset_targets
from propulsion.registration import register_with_peft
from propulsion.scaling import layer_scaling


class PropulsionModel(BaseTuner):
    """Puts a `PropulsionLayer` around each target layer of a frozen model.

    Made by `peft.get_peft_model(model, PropulsionConfig(...))`; see `peft.tuners.BaseTuner` for
    the methods that all tuners share.
    """

    prefix = "propulsion_"
    tuner_layer_cls = PropulsionLayer

    def scaled_layers(self) -> dict[str, PropulsionLayer]:
        """The wrapped layers by their path in the base model."""
        return {
            name: module
            for name, module in self.model.named_modules()
            if isinstance(module, PropulsionLayer)
        }

    def add_weighted_adapter(
        self,
        adapters: Sequence[str],
        weights: Sequence[float],
        adapter_name: str,
        combination_type: weighted.Combination = "linear",
    ) -> None:
        """Add an adapter that blends others; it is frozen and not active.

        Args:
            adapters: adapters of this model.
            weights: one for each.
            adapter_name: what the new adapter, of degree 1, is called.
            combination_type: "linear" adds what each changes, s = 1 + Σ w_i (s_i - 1);
                "geometric" multiplies scales, s = Π s_i^w_i.

        Raises:
            ConfigError: an argument is wrong, or the adapters cannot be blended.
        """
        weighted.add_weighted_adapter(self, adapters, weights, adapter_name, combination_type)

    def merge_adapter(
        self, adapter_names: list[str] | None = None, safe_merge: bool = False
    ) -> None:
        """As in PEFT; raises `PropulsionError` before anything is merged."""
        self._check_mergeable(adapter_names)
        super().merge_adapter(adapter_names=adapter_names, safe_merge=safe_merge)

    def _unload_and_optionally_merge(
        self,
        merge: bool = True,
        progressbar: bool = False,
        safe_merge: bool = False,
        adapter_names: list[str] | None = None,
    ) -> Any:
        if merge:
            self._check_mergeable(adapter_names)
        return super()._unload_and_optionally_merge(
            merge=merge,
            progressbar=progressbar,
            safe_merge=safe_merge,
            adapter_names=adapter_names,
        )

    def _check_mergeable(self, adapter_names: list[str] | None) -> None:
        for layer in self.scaled_layers().values():
            for name in layer.active_adapters if adapter_names is None else adapter_names:
                if name in layer.scaling and name not in layer.merged_adapters:
                    layer.check_mergeable(name)

    def _check_merge_allowed(self) -> None:
        # PEFT warns of tied weights here; a merged layer gets weights of its own, so none suffer.
        pass

    def _check_tied_modules(self, model: nn.Module, peft_config: PropulsionConfig) -> None:
        # PEFT warns of tied weights here; an output is scaled without touching them.
        pass

    def _prepare_adapter_config(
        self, peft_config: PropulsionConfig, model_config: dict[str, Any]
    ) -> PropulsionConfig:
        if peft_config.target_modules is None:
            targets = preset_targets(peft_config.preset, model_config.get("model_type", "custom"))
            config: Any = peft_config
            config.target_modules = targets.target_modules
            config.exclude_modules = exclude_also(config.exclude_modules, targets.exclude_modules)
            config.qkv_part = config.qkv_part or targets.qkv_part
        if peft_config.task_type in LABELLED_TASKS and peft_config.id2label is None:
            labels = model_config.get("id2label")
            peft_config.id2label = None if labels is None else label_names(labels)
            peft_config.problem_type = peft_config.problem_type or model_config.get("problem_type")
        return peft_config

    def _prepare_model(self, peft_config: PropulsionConfig, model: nn.Module) -> None:
        # A bare name of these makes PEFT save the whole frozen embedding beside the adapter.
        targets = peft_config.target_modules
        if not isinstance(targets, set):
            return
        for bare in targets & {*EMBEDDING_LAYER_NAMES}:
            paths = {name for name, _ in model.named_modules() if name.endswith(f".{bare}")}
            if paths:
                targets.remove(bare)
                targets |= paths

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
        scaling = layer_scaling(peft_config, current_key)
        columns = None
        if peft_config.qkv_part is not None:
            columns = self._columns_of(peft_config.qkv_part, current_key)
            scaling = scaling._replace(part=peft_config.qkv_part if columns else None)
        if isinstance(target, PropulsionLayer):
            target.update_layer(adapter_name, peft_config, scaling, columns, current_key)
            return
        layer = PropulsionLayer(target, adapter_name, peft_config, scaling, columns, current_key)
        layer.quantization_backend = resolve_quantization_backend(
            layer.get_base_layer(), **get_quantization_kwargs(self.model)
        )
        layer.saves_result = self._saves_result(current_key)
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(False)
        self._replace_module(parent, target_name, layer, target)

    def _saves_result(self, module: str) -> bool:
        architecture = self._architecture()
        return (
            architecture is not None
            and not architecture.changes_outputs
            and ends_with_any(module, architecture.linear)
        )

    def _architecture(self) -> Architecture | None:
        return ARCHITECTURES.get(self.get_model_config(self.model).get("model_type", ""))

    def _columns_of(self, part: str, module: str) -> list[int] | None:
        model_config, architecture = self.get_model_config(self.model), self._architecture()
        if architecture is None or not architecture.is_fused:
            raise ConfigError(
                f"qkv_part={part!r} is for models with a fused QKV projection, and "
                f"{model_config.get('model_type')!r} is not known as one: target the layer instead"
            )
        if not ends_with_any(module, architecture.qkv):
            return None
        return fused_qkv_columns(model_config, part)

    @contextmanager
    def _enable_peft_forward_hooks(self, *args: Any, **kwargs: Any) -> Generator[None]:
        adapter_names = kwargs.pop("adapter_names", None)
        if adapter_names is None:
            yield
            return
        unknown = sorted({*adapter_names} - {*self.peft_config, BASE})
        if unknown:
            raise ConfigError(
                f"adapter_names: no adapter {', '.join(map(repr, unknown))}; there are "
                f"{', '.join(map(repr, [*self.peft_config, BASE]))}"
            )
        copies = max(kwargs.get("num_beams") or 1, kwargs.get("num_return_sequences") or 1)
        device = next(self.model.parameters()).device
        with mixed_forward(self.model, MixedBatch(adapter_names, device, copies)):
            yield

    @classmethod
    def _get_adapter_state_dict(
        cls,
        model: nn.Module,
        config: Any,
        adapter_name: str,
        state_dict: dict[str, torch.Tensor],
        unwanted_adapter_names: list[str],
    ) -> dict[str, torch.Tensor]:
        selected = super()._get_adapter_state_dict(
            model, config, adapter_name, state_dict, unwanted_adapter_names
        )
        return fused_state.widen(model, adapter_name, selected)

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls,
        model: nn.Module,
        config: Any,
        adapter_name: str,
        state_dict: dict[str, torch.Tensor],
    ) -> dict[str, torch.Tensor]:
        remapped = super()._remap_adapter_state_dict_for_load(
            model, config, adapter_name, state_dict
        )
        return fused_state.narrow(model, adapter_name, remapped)


register_with_peft()
