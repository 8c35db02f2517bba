"""BLOOM: attention, then an MLP without a gate, each after a LayerNorm; biases everywhere.

Nothing passes over queries, keys and values before attention, so their scale is a pass of its own.
ALiBi is left out of all variants alike: it belongs to attention, where torch would run other
kernels for it.
"""

from __future__ import annotations

import torch

from benchmarks.gpu.family import Family, Pair, Step


def _block(step: Step, layer: int, x: torch.Tensor, residual: torch.Tensor) -> Pair:
    passes = step.passes
    qkv = passes.scale(layer, "qkv", step.project(layer, "qkv", x))
    out = step.project(layer, "o", step.attend(qkv))
    x, residual = passes.add_norm(layer, "o", out, residual)
    activated = passes.gelu(layer, step.project(layer, "up", x))
    return passes.add_norm(layer, "down", step.project(layer, "down", activated), residual)


BLOOM = Family(
    block=_block,
    norm="layer",
    epsilon=1e-5,
    is_gated=False,
    biased=("qkv", "o", "up", "down"),
    kernels=("gather_scale", "scale_gelu", "scale_add_norm"),
)
