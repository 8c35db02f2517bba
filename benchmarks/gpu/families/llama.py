"""LLaMA: attention, then a gated MLP, each after an RMSNorm."""

from __future__ import annotations

import torch

from benchmarks.gpu.family import Family, Pair, Step


def _block(step: Step, layer: int, x: torch.Tensor, residual: torch.Tensor) -> Pair:
    passes = step.passes
    qkv = passes.rope(layer, step.project(layer, "qkv", x))
    out = step.project(layer, "o", step.attend(qkv))
    x, residual = passes.add_norm(layer, "o", out, residual)
    activated = passes.act_mul(layer, step.project(layer, "gate_up", x))
    return passes.add_norm(layer, "down", step.project(layer, "down", activated), residual)


LLAMA = Family(
    block=_block,
    norm="rms",
    epsilon=1e-6,
    is_gated=True,
    biased=(),
    kernels=("gather_scale", "scale_rope", "scale_act_mul", "scale_add_norm"),
)
