"""The kinds of layer that can be scaled: their widths, and how a scale goes into their weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from propulsion.errors import PropulsionError

Fold = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def output_width(layer: Any) -> int:
    """d_out of a layer that can be scaled, also while ZeRO-3 holds its weight elsewhere.

    Raises `PropulsionError` for a layer of another kind.
    """
    if isinstance(layer, Conv1D):
        return int(layer.nf)
    if isinstance(layer, nn.Embedding):
        return int(layer.embedding_dim)
    if _is_norm(layer):
        return int(_shape(layer.weight)[-1])
    if hasattr(layer, "in_features") and hasattr(layer, "out_features"):
        # Linear, and the quantised layers that stand in for it.
        return int(layer.out_features)
    raise PropulsionError(
        f"cannot scale a layer of type {type(layer).__name__}: a target must be a linear, Conv1D, "
        "embedding or normalisation layer with a weight"
    )


def input_width(layer: Any) -> int:
    """d_in of a layer whose input can be scaled.

    Raises `PropulsionError` for a layer of another kind.
    """
    if isinstance(layer, Conv1D):
        return int(_shape(layer.weight)[0])
    if hasattr(layer, "in_features") and hasattr(layer, "out_features"):
        return int(layer.in_features)
    raise PropulsionError(
        f"cannot scale the input of a layer of type {type(layer).__name__}: only linear and Conv1D "
        "layers can be in feedforward_modules"
    )


def fold_output(layer: nn.Module) -> Fold:
    """How a scale of the layer's outputs, shape (d_out,), goes into its weight."""
    if isinstance(layer, nn.Embedding | Conv1D):
        return lambda weight, scale: weight * scale
    if _is_norm(layer):
        return _fold_into_norm(layer)
    return lambda weight, scale: weight * scale[:, None]


def fold_input(layer: nn.Module) -> Fold:
    """How a scale of the layer's inputs, shape (d_in,), goes into its weight."""
    if isinstance(layer, Conv1D):
        return lambda weight, scale: weight * scale[:, None]
    return lambda weight, scale: weight * scale


def _is_norm(layer: nn.Module) -> bool:
    weight = getattr(layer, "weight", None)
    is_vector = isinstance(weight, torch.Tensor) and len(_shape(weight)) == 1
    return is_vector and "norm" in type(layer).__name__.lower()


def _fold_into_norm(layer: nn.Module) -> Fold:
    """Some RMSNorms multiply by their weight, others by 1 + weight: ask the layer which."""
    weight: Any = layer.weight
    zeros = {name: torch.zeros_like(tensor) for name, tensor in layer.named_parameters()}
    # A vector that no normalisation maps to zero.
    probe = torch.linspace(1.0, 2.0, weight.numel(), device=weight.device, dtype=weight.dtype)
    with torch.no_grad():
        output = torch.func.functional_call(layer, zeros, (probe[None],))
    if not output.any():
        return lambda weight, scale: weight * scale
    return lambda weight, scale: (1.0 + weight.float()) * scale - 1.0


def _shape(weight: torch.Tensor) -> torch.Size:
    # ZeRO-3 keeps the shape of a partitioned parameter here.
    shape: torch.Size = getattr(weight, "ds_shape", weight.shape)
    return shape
