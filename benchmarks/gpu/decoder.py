"""A decoder step with random weights, and the adapters that may be applied in it.

Everything but the adapters is the same in all variants: the matrix products, attention over a cache
filled before, and the elementwise passes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch.nn import functional as F

from benchmarks.gpu.family import Passes
from benchmarks.gpu.passes import Fused, KernelPasses
from benchmarks.gpu.plain import Plain, PlainPasses
from benchmarks.gpu.shapes import Shape


class Applied(Protocol):
    """An adapter applied to a projection's output as a pass of its own, in place."""

    def __call__(self, layer: int, name: str, inputs: torch.Tensor, output: torch.Tensor) -> None:
        """Change `output`."""


class Decoder:
    """Weights and a cache, made on the device."""

    def __init__(self, shape: Shape, device: str, dtype: torch.dtype):
        self.shape = shape
        generator = torch.Generator(device).manual_seed(0)

        def random(*size: int, scale: float = 0.02) -> torch.Tensor:
            values = torch.empty(size, device=device, dtype=dtype)
            return values.normal_(std=scale, generator=generator)

        projections = shape.projections
        self.weights = [
            {name: random(linear.width, linear.inputs) for name, linear in projections.items()}
            for _ in range(shape.layers)
        ]
        self.biases = [
            {name: random(projections[name].width) for name in shape.family.biased}
            for _ in range(shape.layers)
        ]
        self.norm_weight = torch.ones(shape.hidden, device=device, dtype=dtype)
        self.norm_bias = random(shape.hidden) if shape.family.norm == "layer" else None
        self.no_slots = torch.zeros(shape.tokens, device=device, dtype=torch.int32)
        widest = max(linear.width for linear in projections.values())
        self.no_bank = torch.zeros(1, widest, device=device)
        self.inputs = random(shape.tokens, shape.hidden, scale=1.0)
        angles = torch.rand(max(shape.context, shape.tokens) + 1, shape.rotary // 2, device=device)
        self.cos_sin = torch.cat((angles.cos(), angles.sin()), 1).to(dtype)
        if shape.context:
            # One layer's cache serves all: what is read is as much, and no cache holds it.
            size = (shape.tokens, shape.heads, shape.context, shape.head)
            self.keys, self.values = random(*size), random(*size)
            self.positions = torch.full((shape.tokens,), shape.context - 1, device=device)
        else:
            self.positions = torch.arange(shape.tokens, device=device)

    def resized(self, tokens: int, context: int) -> Decoder:
        """The same weights, for another number of tokens."""
        device, dtype = self.inputs.device.type, self.inputs.dtype
        shape = replace(self.shape, tokens=tokens, context=context)
        other = Decoder(replace(shape, layers=0), device, dtype)
        other.shape, other.weights, other.biases = shape, self.weights, self.biases
        return other

    def one_layer(self) -> Decoder:
        """The first layer alone, on the same weights."""
        layer = self.resized(self.shape.tokens, self.shape.context)
        layer.shape = replace(layer.shape, layers=1)
        return layer

    def step(
        self,
        applied: Applied | None = None,
        fused: Fused | None = None,
        plain: Plain | None = None,
    ) -> torch.Tensor:
        """Hidden states after the last layer's norm, (tokens, hidden).

        Args:
            applied: an adapter in passes of its own.
            fused: an adapter in the passes there are.
            plain: passes to use instead of our kernels, without an adapter in them.
        """
        passes = KernelPasses(self, fused) if plain is None else PlainPasses(self, plain)
        step = DecoderStep(self, passes, applied)
        x, residual = passes.first_norm(self.inputs)
        for layer in range(self.shape.layers):
            x, residual = self.shape.family.block(step, layer, x, residual)
        return x


@dataclass
class DecoderStep:
    """What a block needs of the decoder."""

    decoder: Decoder
    passes: Passes
    applied: Applied | None

    def project(self, layer: int, name: str, x: torch.Tensor) -> torch.Tensor:
        """A linear layer, and the adapter that is applied after it."""
        decoder = self.decoder
        output = F.linear(x, decoder.weights[layer][name], decoder.biases[layer].get(name))
        if self.applied is not None:
            self.applied(layer, name, x, output)
        return output

    def attend(self, qkv: torch.Tensor) -> torch.Tensor:
        """Over the cache, of which this token is the last; in prefill over the tokens before."""
        decoder, shape = self.decoder, self.decoder.shape
        q, k, v = qkv.view(shape.tokens, 3, shape.heads, shape.head).unbind(1)
        if not shape.context:
            q, k, v = (part.transpose(0, 1)[None] for part in (q, k, v))
            attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            return attended[0].transpose(0, 1).reshape(shape.tokens, shape.hidden)
        decoder.keys[:, :, -1], decoder.values[:, :, -1] = k, v
        attended = F.scaled_dot_product_attention(q[:, :, None], decoder.keys, decoder.values)
        return attended.reshape(shape.tokens, shape.hidden)
