"""A LLaMA-shaped decoder step with random weights, and the adapters that may be applied in it.

Everything but the adapters is the same in all variants: the matrix products, attention over a cache
filled before, and the elementwise passes, which are our kernels on slots of 0 where no adapter is
fused into them, so that they read no bank.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch.nn import functional as F

from benchmarks.gpu.plain import Plain
from propulsion import kernels


@dataclass(frozen=True)
class Shape:
    """Sizes of the model and of what it is run on."""

    layers: int
    hidden: int
    intermediate: int
    head: int
    tokens: int
    """Of the step: one of each sequence, or all of one sequence in prefill."""
    context: int
    """Tokens in the cache of each sequence; 0 for a prefill."""

    @property
    def heads(self) -> int:
        """Of queries, and as many of keys."""
        return self.hidden // self.head

    @property
    def widths(self) -> dict[str, int]:
        """Output width of each projection."""
        return {
            "qkv": 3 * self.hidden,
            "o": self.hidden,
            "gate_up": 2 * self.intermediate,
            "down": self.hidden,
        }

    @property
    def inputs(self) -> dict[str, int]:
        """Input width of each projection."""
        return {
            "qkv": self.hidden,
            "o": self.hidden,
            "gate_up": self.hidden,
            "down": self.intermediate,
        }


class Applied(Protocol):
    """An adapter applied to a projection's output as a pass of its own, in place."""

    def __call__(self, layer: int, name: str, inputs: torch.Tensor, output: torch.Tensor) -> None:
        """Change `output`."""


@dataclass(frozen=True)
class Fused:
    """Bank rows that the elementwise passes apply: slots (tokens,), a view by layer and name."""

    slots: torch.Tensor
    bank: dict[str, list[torch.Tensor]]


class Decoder:
    """Weights and a cache, made on the device."""

    def __init__(self, shape: Shape, device: str, dtype: torch.dtype):
        self.shape = shape
        generator = torch.Generator(device).manual_seed(0)

        def random(*size: int, scale: float = 0.02) -> torch.Tensor:
            values = torch.empty(size, device=device, dtype=dtype)
            return values.normal_(std=scale, generator=generator)

        self.weights = [
            {name: random(width, shape.inputs[name]) for name, width in shape.widths.items()}
            for _ in range(shape.layers)
        ]
        self.norm = torch.ones(shape.hidden, device=device, dtype=dtype)
        self.no_slots = torch.zeros(shape.tokens, device=device, dtype=torch.int32)
        self.no_bank = torch.zeros(1, max(shape.widths.values()), device=device)
        self.inputs = random(shape.tokens, shape.hidden, scale=1.0)
        angles = torch.rand(max(shape.context, shape.tokens) + 1, shape.head // 2, device=device)
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
        other = Decoder(
            replace(self.shape, layers=0, tokens=tokens, context=context), device, dtype
        )
        other.shape, other.weights = (
            replace(self.shape, tokens=tokens, context=context),
            self.weights,
        )
        return other

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
            plain: passes to use instead of our kernels, without an adapter.
        """
        shape = self.shape
        if plain is not None:
            return self._plain_step(plain)
        x, residual = self.inputs.clone(), torch.zeros_like(self.inputs)
        x, residual = self._norm(x, residual, None, 0)
        for layer in range(shape.layers):
            qkv = self._project(layer, "qkv", x, applied)
            bank, slots = self._bank(fused, layer, "qkv")
            kernels.scale_rope_(
                qkv,
                bank,
                slots,
                self.positions,
                self.cos_sin,
                num_heads=shape.heads,
                num_kv_heads=shape.heads,
                head_size=shape.head,
            )
            attended = self._attention(qkv)
            out = self._project(layer, "o", attended, applied)
            x, residual = self._norm(out, residual, fused, layer, "o")
            gate_up = self._project(layer, "gate_up", x, applied)
            bank, slots = self._bank(fused, layer, "gate_up")
            activated = kernels.scale_act_mul(gate_up, bank, slots)
            down = self._project(layer, "down", activated, applied)
            x, residual = self._norm(down, residual, fused, layer, "down")
        return x

    def _plain_step(self, plain: Plain) -> torch.Tensor:
        shape = self.shape
        x, residual = plain.add_norm(self.inputs, torch.zeros_like(self.inputs), self.norm)
        for layer in range(shape.layers):
            qkv = self._project(layer, "qkv", x, None)
            qkv = plain.rope(qkv, self.positions, self.cos_sin, shape.heads, shape.head)
            out = self._project(layer, "o", self._attention(qkv), None)
            x, residual = plain.add_norm(out, residual, self.norm)
            activated = plain.act_mul(self._project(layer, "gate_up", x, None))
            down = self._project(layer, "down", activated, None)
            x, residual = plain.add_norm(down, residual, self.norm)
        return x

    def _project(
        self, layer: int, name: str, x: torch.Tensor, applied: Applied | None
    ) -> torch.Tensor:
        output = F.linear(x, self.weights[layer][name])
        if applied is not None:
            applied(layer, name, x, output)
        return output

    def _bank(
        self, fused: Fused | None, layer: int, name: str
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if fused is None:
            return self.no_bank[:, : self.shape.widths[name]], self.no_slots
        return fused.bank[name][layer], fused.slots

    def _norm(
        self,
        x: torch.Tensor,
        residual: torch.Tensor,
        fused: Fused | None,
        layer: int,
        name: str = "o",
    ) -> tuple[torch.Tensor, torch.Tensor]:
        bank, slots = self._bank(fused, layer, name)
        return kernels.scale_add_norm_(x, residual, bank, slots, self.norm)

    def _attention(self, qkv: torch.Tensor) -> torch.Tensor:
        shape = self.shape
        q, k, v = qkv.view(shape.tokens, 3, shape.heads, shape.head).unbind(1)
        if not shape.context:
            q, k, v = (part.transpose(0, 1)[None] for part in (q, k, v))
            attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            return attended[0].transpose(0, 1).reshape(shape.tokens, shape.hidden)
        self.keys[:, :, -1], self.values[:, :, -1] = k, v
        attended = F.scaled_dot_product_attention(q[:, :, None], self.keys, self.values)
        return attended.reshape(shape.tokens, shape.hidden)
