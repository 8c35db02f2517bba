"""Adapters for the decoder: Propulsion's bank, fused or not, and LoRA's matrices.

Tokens come in equal runs of one adapter each: the best case for LoRA, whose products are then one
batched product for all adapters.
"""

from __future__ import annotations

import torch

from benchmarks.gpu.passes import Fused
from benchmarks.gpu.shapes import Shape
from propulsion import kernels


def make_bank(
    shape: Shape, num_adapters: int, device: str, dtype: torch.dtype = torch.float32
) -> dict[str, list[torch.Tensor]]:
    """Views of one bank by name and layer, (num_adapters + 1, width); row 0 is zeros."""
    projections = shape.projections
    widths = [linear.width for linear in projections.values()] * shape.layers
    bank = torch.empty(num_adapters + 1, sum(widths), device=device, dtype=dtype)
    bank.normal_(std=0.05)
    bank[0] = 0
    columns = iter(bank.split(widths, dim=1))
    views: dict[str, list[torch.Tensor]] = {name: [] for name in projections}
    for _ in range(shape.layers):
        for name in projections:
            views[name].append(next(columns))
    return views


def slots_of(tokens: int, num_adapters: int, device: str) -> torch.Tensor:
    """Row of each token, (tokens,) int32: equal runs of as many adapters as there can be."""
    used = min(tokens, num_adapters)
    return (torch.arange(tokens, device=device) * used // tokens + 1).int()


class Unfused:
    """Propulsion as a pass of its own after each projection."""

    def __init__(self, fused: Fused):
        self._fused = fused

    def __call__(self, layer: int, name: str, inputs: torch.Tensor, output: torch.Tensor) -> None:
        kernels.gather_scale_(output, self._fused.bank[name][layer], self._fused.slots)


class GroupedLora:
    """LoRA by two batched products of torch for each module, over all adapters at once.

    Args:
        shape: of the decoder.
        rank: of every adapter.
        num_adapters: at the most; a step uses as many as it has tokens.
        device: where.
        dtype: of the matrices.
    """

    def __init__(self, shape: Shape, rank: int, num_adapters: int, device: str, dtype: torch.dtype):
        self.rank = rank

        def random(*size: int) -> torch.Tensor:
            return torch.empty(size, device=device, dtype=dtype).normal_(std=0.01)

        self._linears = shape.projections
        self._down = {
            name: [
                random(num_adapters, linear.inputs, linear.parts * rank)
                for _ in range(shape.layers)
            ]
            for name, linear in self._linears.items()
        }
        self._up = {
            name: [random(num_adapters, rank, linear.width) for _ in range(shape.layers)]
            for name, linear in self._linears.items()
        }

    def __call__(self, layer: int, name: str, inputs: torch.Tensor, output: torch.Tensor) -> None:
        down, up = self._down[name][layer], self._up[name][layer]
        groups = min(len(inputs), len(down))
        low = torch.bmm(inputs.view(groups, -1, inputs.shape[1]), down[:groups])
        parts = self._linears[name].parts
        width = output.shape[1] // parts
        grouped = output.view(groups, -1, output.shape[1])
        for part in range(parts):
            columns = slice(part * width, (part + 1) * width)
            of_part = low[..., part * self.rank : (part + 1) * self.rank]
            grouped[..., columns].add_(torch.bmm(of_part, up[:groups, :, columns]))
