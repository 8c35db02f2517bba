"""Reads and writes the whole optimiser state, however ZeRO has partitioned it.

A checkpoint in terms of whole parameters resumes on any number of ranks and at any ZeRO stage.
Every function is collective: all ranks call it together.
"""

from __future__ import annotations

from typing import Any

import torch

MOMENTS = ("exp_avg", "exp_avg_sq")


def trainable_parameters(engine: Any) -> dict[str, torch.nn.Parameter]:
    """Name → parameter of all that is trained, in the model's order."""
    return {n: p for n, p in engine.module.named_parameters() if p.requires_grad}


def full_weights(engine: Any) -> dict[str, torch.Tensor]:
    """Name → whole fp32 master weight, on the CPU."""
    if engine.zero_optimization_stage() == 0:
        return {n: p.detach().float().cpu() for n, p in trainable_parameters(engine).items()}
    from deepspeed.utils import safe_get_full_fp32_param

    return {
        n: safe_get_full_fp32_param(p).detach().clone().cpu()
        for n, p in trainable_parameters(engine).items()
    }


def load_weights(engine: Any, weights: dict[str, torch.Tensor]) -> None:
    """Set whole master weights, and the weights that the model computes with."""
    from deepspeed.utils import safe_set_full_fp32_param

    stage = engine.zero_optimization_stage()
    for name, parameter in trainable_parameters(engine).items():
        if stage == 0:
            parameter.data.copy_(weights[name])
        else:
            safe_set_full_fp32_param(parameter, weights[name].to(parameter.device))


def full_moments(engine: Any) -> dict[str, torch.Tensor]:
    """`<parameter>/<moment>` → whole tensor of AdamW's two moments, on the CPU."""
    from deepspeed.utils import safe_get_full_optimizer_state

    moments = {}
    for name, parameter in trainable_parameters(engine).items():
        for moment in MOMENTS:
            if engine.zero_optimization_stage() == 0:
                value = engine.optimizer.state[parameter][moment]
            else:
                value = safe_get_full_optimizer_state(parameter, moment)
            moments[f"{name}/{moment}"] = value.detach().clone().cpu()
    return moments


def load_moments(engine: Any, moments: dict[str, torch.Tensor], step: int) -> None:
    """Set the moments, and AdamW's own step count, which its bias correction needs."""
    from deepspeed.utils import safe_set_full_optimizer_state

    for name, parameter in trainable_parameters(engine).items():
        for moment in MOMENTS:
            value = moments[f"{name}/{moment}"].to(parameter.device)
            if engine.zero_optimization_stage() == 0:
                engine.optimizer.state[parameter][moment] = value
            else:
                safe_set_full_optimizer_state(parameter, value, moment)
    inner = getattr(engine.optimizer, "optimizer", engine.optimizer)
    for parameter_state in inner.state.values():
        parameter_state["step"] = torch.tensor(float(step))
