"""The elementwise passes by our kernels, with the scales of adapters in them or without."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from benchmarks.gpu.family import Pair
from propulsion import kernels

if TYPE_CHECKING:
    from benchmarks.gpu.decoder import Decoder


@dataclass(frozen=True)
class Fused:
    """Bank rows that the elementwise passes apply: slots (tokens,), a view by name and layer."""

    slots: torch.Tensor
    bank: dict[str, list[torch.Tensor]]


class KernelPasses:
    """`Passes` that apply `fused`; without it on slots of 0, so that no bank is read."""

    def __init__(self, decoder: Decoder, fused: Fused | None):
        self._decoder = decoder
        self._fused = fused
        family = decoder.shape.family
        self._norm = {"epsilon": family.epsilon, "norm": family.norm}

    def scale(self, layer: int, name: str, x: torch.Tensor) -> torch.Tensor:
        if self._fused is None:
            return x
        return kernels.gather_scale_(x, *self._rows(layer, name))

    def rope(self, layer: int, qkv: torch.Tensor) -> torch.Tensor:
        shape = self._decoder.shape
        return kernels.scale_rope_(
            qkv,
            *self._rows(layer, "qkv"),
            self._decoder.positions,
            self._decoder.cos_sin,
            num_heads=shape.heads,
            num_kv_heads=shape.heads,
            head_size=shape.head,
            is_neox=shape.family.is_neox,
        )

    def act_mul(self, layer: int, gate_up: torch.Tensor) -> torch.Tensor:
        return kernels.scale_act_mul(gate_up, *self._rows(layer, "gate_up"))

    def gelu(self, layer: int, up: torch.Tensor) -> torch.Tensor:
        return kernels.scale_gelu_(up, *self._rows(layer, "up"))

    def first_norm(self, x: torch.Tensor) -> Pair:
        return self._add_norm(x.clone(), torch.zeros_like(x), *self._no_rows("o"))

    def add_norm(self, layer: int, name: str, x: torch.Tensor, residual: torch.Tensor) -> Pair:
        return self._add_norm(x, residual, *self._rows(layer, name))

    def add_both_norm(
        self, layer: int, attended: torch.Tensor, mlp: torch.Tensor, residual: torch.Tensor
    ) -> Pair:
        if self._fused is None:
            residual.add_(attended)
        else:
            # Of this pass only the sum is wanted: still less is moved than by a scale and a sum.
            self._add_norm(attended, residual, *self._rows(layer, "o"))
        return self.add_norm(layer, "down", mlp, residual)

    def _add_norm(
        self, x: torch.Tensor, residual: torch.Tensor, bank: torch.Tensor, slots: torch.Tensor
    ) -> Pair:
        weight, bias = self._decoder.norm_weight, self._decoder.norm_bias
        return kernels.scale_add_norm_(x, residual, bank, slots, weight, bias, **self._norm)

    def _rows(self, layer: int, name: str) -> Pair:
        if self._fused is None:
            return self._no_rows(name)
        return self._fused.bank[name][layer], self._fused.slots

    def _no_rows(self, name: str) -> Pair:
        width = self._decoder.shape.projections[name].width
        return self._decoder.no_bank[:, :width], self._decoder.no_slots
