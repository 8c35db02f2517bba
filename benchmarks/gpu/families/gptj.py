"""GPT-J: attention and an MLP without a gate side by side, both after the same LayerNorm."""

from __future__ import annotations

import torch

from benchmarks.gpu.family import Family, Pair, Step


def _block(step: Step, layer: int, x: torch.Tensor, residual: torch.Tensor) -> Pair:
    passes = step.passes
    qkv = passes.rope(layer, step.project(layer, "qkv", x))
    attended = step.project(layer, "o", step.attend(qkv))
    activated = passes.gelu(layer, step.project(layer, "up", x))
    mlp = step.project(layer, "down", activated)
    return passes.add_both_norm(layer, attended, mlp, residual)


GPTJ = Family(
    block=_block,
    norm="layer",
    epsilon=1e-5,
    is_gated=False,
    is_neox=False,
    biased=("up", "down"),
    kernels=("gather_scale", "scale_rope", "scale_gelu", "scale_add_norm"),
)
