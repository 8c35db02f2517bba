"""How the code of the paper's authors lays out the state dict of a model with scaled layers.

Each scaled layer `<module>` of https://github.com/Kowsher/Propulsion holds z as
`<module>.propulsion`, shape (d_out,), and the frozen layer in a child, or in itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from propulsion.errors import AdapterCorruptError
from propulsion.interchange.state_dicts import LazyTensors, renamed

_Z = ".propulsion"
_LINEARS = ("linear", "prop_linear")
_EMBEDDING = "embeddings"
_NORM = "layer_norm"


@dataclass(frozen=True)
class ScaledLayer:
    """A layer of the authors' model."""

    z: torch.Tensor
    """Shape (d_out,), any float dtype."""
    weights: str
    """Path of what holds the frozen weights: the layer, or a child of it."""
    output_dim: int
    """Dimension of the weight that runs over outputs."""
    is_norm: bool


def find_layers(tensors: Mapping[str, torch.Tensor]) -> dict[str, ScaledLayer]:
    """The scaled layers, by the path that the layer has in the unchanged model.

    Raises:
        AdapterCorruptError: there is none, one has no weights or a z that does not fit them, or
            the names are of another layout.
    """
    edited = next((name for name in tensors if ".propulsion_" in f".{name}"), None)
    if edited is not None:
        raise AdapterCorruptError(
            f"the checkpoint holds {edited!r}: only layers with a parameter named 'propulsion' can "
            "be imported, not models whose own code was edited to scale, nor state dicts of PEFT"
        )
    modules = [name.removesuffix(_Z) for name in tensors if name.endswith(_Z)]
    if not modules:
        raise AdapterCorruptError(f"the checkpoint holds no '<module>{_Z}': nothing is scaled")
    return {module: _layer(tensors, module) for module in modules}


def plain_names(
    tensors: Mapping[str, torch.Tensor], layers: Mapping[str, ScaledLayer]
) -> LazyTensors:
    """The weights under the names they have in the unchanged model; z left out."""
    modules = {layer.weights: module for module, layer in layers.items()}
    names = {}
    for name in tensors:
        if not name.endswith(_Z):
            parent, dot, leaf = name.rpartition(".")
            names[f"{modules.get(parent, parent)}{dot}{leaf}"] = name
    return renamed(tensors, names)


def _layer(tensors: Mapping[str, torch.Tensor], module: str) -> ScaledLayer:
    children = [f"{module}.{child}" for child in (*_LINEARS, _EMBEDDING, _NORM)]
    holders = [path for path in (*children, module) if f"{path}.weight" in tensors]
    if not holders:
        raise AdapterCorruptError(
            f"the checkpoint holds {module}{_Z} but no weight for that layer: give the state dict "
            "of the whole model, which tells what kind of layer it is"
        )
    z, weight = tensors[f"{module}{_Z}"], tensors[f"{holders[0]}.weight"]
    output_dim = 0
    if holders[0] != module:
        output_dim = -1 if holders[0].endswith(f".{_EMBEDDING}") else 0
    elif z.shape != weight.shape[:1]:
        # No child's name tells; the weight of an embedding has its outputs last.
        output_dim = -1
    if not z.is_floating_point() or z.ndim != 1 or z.shape[0] != weight.shape[output_dim]:
        raise AdapterCorruptError(
            f"the checkpoint's {module}{_Z} is {z.dtype} of shape {tuple(z.shape)}, which does not "
            f"fit the weight of shape {tuple(weight.shape)}"
        )
    return ScaledLayer(z, holders[0], output_dim, is_norm=weight.ndim == 1)
