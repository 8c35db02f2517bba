"""The residual sum and RMSNorm with the scale of the projection before them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import torch
from torch import nn

from propulsion.kernels import scale_add_norm_
from serving import vllm_compat_fusion
from serving.worker.fusion.fusion import is_same
from serving.worker.hooks import LayerScale
from serving.worker.targets import ScaledLayer


@dataclass(frozen=True)
class AddNorm:
    """A norm that adds what a linear layer gives to the residual.

    Attributes:
        norm: the module.
    """

    norm: nn.Module
    in_place: ClassVar[bool] = True

    @classmethod
    def of(
        cls, parent: nn.Module, reader: nn.Module, output: torch.Tensor, inputs: tuple[Any, ...]
    ) -> AddNorm | None:
        """See `Fusion.of`."""
        if len(inputs) != 2 or not vllm_compat_fusion.is_rms_norm(reader):
            return None
        x, residual = inputs
        fits = (
            is_same(x, output)
            and x.dim() == 2
            and isinstance(residual, torch.Tensor)
            and residual.shape == x.shape
            and residual.dtype == x.dtype == reader.weight.dtype
        )
        return cls(reader) if fits else None

    def scale_by(self, layer: ScaledLayer, scale: LayerScale, *, captured: bool) -> None:
        """See `Fusion.scale_by`."""
        # Another class for the same module: its weight keeps its name, which reloading looks for,
        # and its hooks, by which adapters scale the norm itself.
        norm: Any = self.norm
        norm.propulsion_scale = scale
        norm.propulsion_captured = captured
        norm.__class__ = _scaled(type(norm))


@cache
def _scaled(kind: type[nn.Module]) -> type[nn.Module]:
    return type(f"Scaled{kind.__name__}", (_ScaledAddNorm, kind), {})


class _ScaledAddNorm(nn.Module):
    """Mixed into the class of a norm; without a residual it is the norm that it was."""

    propulsion_scale: LayerScale
    propulsion_captured: bool

    def forward(
        self, x: torch.Tensor, residual: torch.Tensor | None = None
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        scale = self.propulsion_scale
        if residual is None or not (self.propulsion_captured or scale.active):
            result: torch.Tensor | tuple[torch.Tensor, torch.Tensor] = super().forward(x, residual)
            return result
        bank, slots, negative_slots = scale.operands(len(x))
        return scale_add_norm_(
            x,
            residual,
            bank,
            slots,
            self.weight,
            negative_slots=negative_slots,
            epsilon=vllm_compat_fusion.epsilon(self),
        )
