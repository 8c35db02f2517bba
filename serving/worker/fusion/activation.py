"""The activation of an MLP with the scale of the projection before it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import nn

from propulsion.kernels import scale_act_mul, scale_gelu
from serving import vllm_compat_fusion
from serving.worker.fusion.fusion import is_same, name_in
from serving.worker.hooks import LayerScale
from serving.worker.targets import ScaledLayer


@dataclass(frozen=True)
class Activation:
    """Where a model applies an activation to what a linear layer gives.

    Attributes:
        parent: the module that has the activation.
        name: of the activation there.
        kernel: that scales and activates: `scale_act_mul` or `scale_gelu`.
    """

    parent: nn.Module
    name: str
    kernel: Callable[..., torch.Tensor]
    in_place: ClassVar[bool] = False

    @classmethod
    def of(
        cls, parent: nn.Module, reader: nn.Module, output: torch.Tensor, inputs: tuple[Any, ...]
    ) -> Activation | None:
        """See `Fusion.of`."""
        kind, name = vllm_compat_fusion.activation(reader), name_in(parent, reader)
        if kind is None or name is None or len(inputs) != 1 or not is_same(inputs[0], output):
            return None
        is_gated, function = kind
        kernel = scale_act_mul if is_gated else scale_gelu
        return cls(parent, name, partial(kernel, activation=function))

    def scale_by(self, layer: ScaledLayer, scale: LayerScale, *, captured: bool) -> None:
        """See `Fusion.scale_by`."""
        # Layers may share one activation: each gets its own.
        original = getattr(self.parent, self.name)
        setattr(self.parent, self.name, ScaledActivation(original, scale, self.kernel, captured))


class ScaledActivation(nn.Module):
    """Stands in for a model's activation, whose input is the output of a scaled layer.

    Args:
        original: what it stands in for, and calls while the batch does not scale the layer.
        scale: of the layer.
        kernel: as in `Activation`.
        captured: as in `hooks.attach`.
    """

    def __init__(
        self,
        original: nn.Module,
        scale: LayerScale,
        kernel: Callable[..., torch.Tensor],
        captured: bool,
    ):
        super().__init__()
        self.original = original
        self.scale = scale
        self._kernel = kernel
        self._captured = captured

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self._captured or self.scale.active:
            return self._kernel(x, *self.scale.operands(len(x)))
        activated: torch.Tensor = self.original(x)
        return activated
