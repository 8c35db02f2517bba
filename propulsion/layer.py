"""The scaled layer: a frozen layer whose output is multiplied by z^k."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer, check_adapters_to_merge
from torch import nn

from propulsion.config import PropulsionConfig
from propulsion.errors import PropulsionError
from propulsion.functional import effective_scale, scale_output
from propulsion.registration import register_with_peft


class PropulsionLayer(nn.Module, BaseTunerLayer):
    """Wraps a `torch.nn.Linear` so that its output V, bias included, becomes V ⊙ z^k.

    The parameter of each adapter is the offset δ = z - 1, shape (num_vectors, d_out), fp32 on the
    base layer's device. Several active adapters multiply.
    """

    adapter_layer_names = ("propulsion_delta",)
    other_param_names = ("degree",)

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: PropulsionConfig) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.propulsion_delta = nn.ParameterDict()
        self.degree: dict[str, int] = {}
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        base: Any = self.get_base_layer()
        if not isinstance(base, nn.Linear):
            raise PropulsionError(
                f"cannot scale a layer of type {type(base).__name__}; in this version only "
                "torch.nn.Linear can be a target"
            )
        self.in_features, self.out_features = base.in_features, base.out_features
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, config)

    def update_layer(self, adapter_name: str, config: PropulsionConfig) -> None:
        """Add an adapter, or replace it by a fresh one: δ = 0, so that z is 1."""
        self.degree[adapter_name] = config.degree
        base: Any = self.get_base_layer()
        self.propulsion_delta[adapter_name] = nn.Parameter(
            torch.zeros(
                config.num_vectors,
                self.out_features,
                dtype=torch.float32,
                device=base.weight.device,
            )
        )
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def scale(self, adapter_name: str) -> torch.Tensor:
        """The effective scale s of an adapter, shape (d_out,), fp32, differentiable."""
        return effective_scale(self.propulsion_delta[adapter_name], self.degree[adapter_name])

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if self.disable_adapters and self.merged:
            self.unmerge()
        output: torch.Tensor = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters or self.merged:
            return output
        scales = [self.scale(name) for name in self.active_adapters if name in self.degree]
        for scale in scales:
            output = scale_output(output, scale)
        return output

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Fold the scale into W and b: W' = diag(s) W, b' = s ⊙ b, computed in fp32.

        Raises `PropulsionError` with `safe_merge` if a merged weight is not finite; nothing is
        merged then.
        """
        for name in check_adapters_to_merge(self, adapter_names):
            if name in self.degree:
                self._fold(self.scale(name).detach(), name, check=safe_merge)
                self.merged_adapters.append(name)

    def unmerge(self) -> None:
        """Divide the merged scales out again; exact only up to rounding.

        Raises `PropulsionError` if a merged scale has a zero, which no division undoes.
        """
        if not self.merged:
            warnings.warn("Already unmerged. Nothing to do.", stacklevel=2)
            return
        for name in reversed(self.merged_adapters[:]):
            scale = self.scale(name).detach()
            if (scale == 0).any():
                raise PropulsionError(
                    f"adapter {name!r} has a zero scale and cannot be unmerged: reload the base"
                )
            self._fold(1.0 / scale, name, check=False)
            self.merged_adapters.remove(name)

    def _fold(self, factor: torch.Tensor, adapter_name: str, *, check: bool) -> None:
        base: Any = self.get_base_layer()
        weight = (base.weight.data * factor[:, None]).to(base.weight.dtype)
        bias = None if base.bias is None else (base.bias.data * factor).to(base.bias.dtype)
        if check and not all(t is None or bool(t.isfinite().all()) for t in (weight, bias)):
            raise PropulsionError(
                f"merging adapter {adapter_name!r} gives weights that are not finite; it is broken"
            )
        base.weight.data = weight
        if bias is not None:
            base.bias.data = bias


register_with_peft()
