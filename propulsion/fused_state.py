"""Adapters of a part of a fused QKV projection are saved as wide as the projection.

So a saved adapter needs no knowledge of the architecture: offsets of 0 leave the rest as it is.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from propulsion.errors import AdapterCorruptError
from propulsion.folding import output_width
from propulsion.layer import PropulsionLayer

State = dict[str, torch.Tensor]


def widen(model: nn.Module, adapter_name: str, state: State) -> State:
    """Offsets of the trained columns, (num_vectors, part), to (num_vectors, d_out)."""

    def to_whole(
        layer: PropulsionLayer, columns: torch.Tensor, delta: torch.Tensor
    ) -> torch.Tensor:
        whole = delta.new_zeros(delta.shape[0], output_width(layer.get_base_layer()))
        return whole.index_copy(1, columns.to(delta.device), delta)

    return _on_parts(model, adapter_name, state, to_whole)


def narrow(model: nn.Module, adapter_name: str, state: State) -> State:
    """The reverse of `widen`.

    Raises:
        AdapterCorruptError: the adapter scales outputs that do not belong to its part.
    """

    def to_part(layer: PropulsionLayer, columns: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
        columns = columns.to(delta.device)
        if delta.index_fill(1, columns, 0.0).any():
            raise AdapterCorruptError(
                f"adapter {adapter_name!r} is said to scale only the "
                f"{layer.scaling[adapter_name].part} outputs of a fused projection, but others of "
                "its offsets are not 0: qkv_part in its adapter_config.json is wrong"
            )
        return delta.index_select(1, columns)

    return _on_parts(model, adapter_name, state, to_part)


def _on_parts(
    model: nn.Module,
    adapter_name: str,
    state: State,
    change: Callable[[PropulsionLayer, torch.Tensor, torch.Tensor], torch.Tensor],
) -> State:
    changed = dict(state)
    for name, layer in model.named_modules():
        if isinstance(layer, PropulsionLayer) and adapter_name in layer.scaling:
            columns = layer.columns(adapter_name)
            key = f"{name}.propulsion_delta.{adapter_name}"
            if columns is not None and key in changed:
                changed[key] = change(layer, columns, changed[key])
    return changed
