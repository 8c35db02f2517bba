"""LoRA by Punica's Triton kernels, where vLLM brings them."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.gpu.adapters import slots_of
from benchmarks.gpu.shapes import Shape


class PunicaLora:
    """Shrink and expand as vLLM calls them, with the tokens' adapters prepared once.

    Raises:
        ImportError: vLLM is not installed.
    """

    def __init__(self, shape: Shape, rank: int, num_adapters: int, device: str, dtype: torch.dtype):
        from vllm.lora.ops.triton_ops import LoRAKernelMeta, lora_expand, lora_shrink

        self._expand: Any = lora_expand
        self._shrink: Any = lora_shrink
        meta = LoRAKernelMeta.make(num_adapters, shape.tokens, device)
        meta.prepare_tensors(slots_of(shape.tokens, num_adapters, device) - 1)
        self._meta = meta.meta_args(shape.tokens, False)
        self.rank = rank

        def random(*size: int) -> torch.Tensor:
            return torch.empty(size, device=device, dtype=dtype).normal_(std=0.01)

        linears = shape.projections
        self._low = {
            name: torch.empty(linear.parts, shape.tokens, rank, device=device)
            for name, linear in linears.items()
        }
        self._a = {
            name: [
                [random(num_adapters, rank, linear.inputs) for _ in range(linear.parts)]
                for _ in range(shape.layers)
            ]
            for name, linear in linears.items()
        }
        self._b = {
            name: [
                [
                    random(num_adapters, linear.width // linear.parts, rank)
                    for _ in range(linear.parts)
                ]
                for _ in range(shape.layers)
            ]
            for name, linear in linears.items()
        }

    def __call__(self, layer: int, name: str, inputs: torch.Tensor, output: torch.Tensor) -> None:
        low = self._low[name]
        self._shrink(inputs, self._a[name][layer], low, *self._meta, 1.0)
        self._expand(low, self._b[name][layer], output, *self._meta, 0, True)
