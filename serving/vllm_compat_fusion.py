"""vLLM's activations, rotary embeddings and norms, and a run of its models outside the engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from vllm.distributed.parallel_state import get_pp_group
from vllm.forward_context import set_forward_context
from vllm.model_executor.layers import activation as activations
from vllm.model_executor.layers.layernorm import RMSNorm
from vllm.model_executor.layers.rotary_embedding import RotaryEmbedding

_TURNS = ("forward_native", "forward_cuda", "forward_cpu")


def activation(module: nn.Module) -> tuple[bool, str] | None:
    """Whether an activation multiplies with a gate, and its function: silu, gelu or gelu_tanh.

    None for modules that are none of these.
    """
    kind = type(module)
    if kind is activations.SiluAndMul:
        return True, "silu"
    if kind in (activations.GeluAndMul, nn.GELU):
        tanh = module.approximate == "tanh"
        return kind is not nn.GELU, "gelu_tanh" if tanh else "gelu"
    if kind is activations.GELU:
        return False, "gelu"
    if kind in (activations.NewGELU, activations.FastGELU):
        return False, "gelu_tanh"
    return None


def is_rotary(module: nn.Module) -> bool:
    """Whether a module turns by its table of cosines and sines alone, whatever made the table."""
    return isinstance(module, RotaryEmbedding) and all(
        getattr(type(module), name) is getattr(RotaryEmbedding, name) for name in _TURNS
    )


def cosines_and_sines(rotary: Any, like: torch.Tensor) -> torch.Tensor:
    """The table of a rotary embedding, (positions, rotary_dim), in the dtype of `like`."""
    table: torch.Tensor = rotary._match_cos_sin_cache_dtype(like)
    return table


def is_rms_norm(module: Any) -> bool:
    """Whether a module is a plain RMSNorm with a weight, over the whole width."""
    return type(module) is RMSNorm and module.has_weight and module.variance_size_override is None


def epsilon(norm: Any) -> float:
    """What an RMSNorm adds to the mean square."""
    value: float = norm.variance_epsilon
    return value


def run_once(model: Any, vllm_config: Any, num_tokens: int, device: torch.device) -> None:
    """Run a loaded model on `num_tokens` first tokens without a cache, as vLLM's profiling does.

    Raises:
        Exception: the model needs more than tokens and positions.
    """
    received = None
    if not get_pp_group().is_first_rank:
        dtype = vllm_config.model_config.dtype
        received = model.make_empty_intermediate_tensors(num_tokens, dtype, device)
    with torch.inference_mode(), set_forward_context(None, vllm_config), _eager(model):
        model(
            input_ids=torch.zeros(num_tokens, dtype=torch.int32, device=device),
            positions=torch.arange(num_tokens, device=device),
            intermediate_tensors=received,
        )


@contextmanager
def _eager(model: nn.Module) -> Iterator[None]:
    compiled = [m for m in model.modules() if getattr(m, "do_not_compile", True) is False]
    for module in compiled:
        module.do_not_compile = True
    try:
        yield
    finally:
        for module in compiled:
            module.do_not_compile = False
