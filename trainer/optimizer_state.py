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
    from deepspeed.utils import safe_get_full_fp32_param

    read = _parameter_itself if engine.zero_optimization_stage() == 0 else safe_get_full_fp32_param
    return {
        name: read(parameter).detach().clone().cpu()
        for name, parameter in trainable_parameters(engine).items()
    }


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


def load_weights(engine: Any, weights: dict[str, torch.Tensor]) -> None:
    """Set whole master weights, and the weights that the model computes with."""
    from deepspeed.utils import safe_set_full_fp32_param, safe_set_local_fp32_param

    stage = engine.zero_optimization_stage()
    for name, parameter in trainable_parameters(engine).items():
        value = weights[name].to(engine.device)
        if stage == 3:
            share = _share(parameter, value)
            safe_set_local_fp32_param(parameter, share)
            parameter.ds_tensor.data.copy_(share)  # type: ignore[attr-defined]
            continue
        parameter.data.copy_(value)
        if stage > 0:
            safe_set_full_fp32_param(parameter, value)


def load_moments(engine: Any, moments: dict[str, torch.Tensor], step: int) -> None:
    """Set the moments, and AdamW's own step count, which its bias correction needs."""
    from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

    stage = engine.zero_optimization_stage()
    _create_states(engine, step)
    for name, parameter in trainable_parameters(engine).items():
        for moment in MOMENTS:
            value = moments[f"{name}/{moment}"].to(engine.device)
            if stage == 0:
                engine.optimizer.state[parameter][moment].copy_(value)
            elif stage == 3:
                safe_set_local_optimizer_state(parameter, _share(parameter, value), moment)
            else:
                safe_set_full_optimizer_state(parameter, value, moment)


def _create_states(engine: Any, step: int) -> None:
    """What AdamW's first step would create: a state for each tensor that it steps."""
    optimizer = engine.optimizer
    stage = engine.zero_optimization_stage()
    if stage == 0:
        inner, masters = optimizer, trainable_parameters(engine).values()
    elif stage == 3:
        inner, masters = optimizer.optimizer, optimizer.fp32_partitioned_groups_flat
    else:
        inner, masters = optimizer.optimizer, optimizer.single_partition_of_fp32_groups
    for master in masters:
        inner.state[master] = {
            "step": torch.tensor(float(step)),
            **{moment: torch.zeros_like(master) for moment in MOMENTS},
        }
    if stage in (1, 2):
        # DeepSpeed does this after the first step, and knows no parameter's moments before.
        optimizer._lazy_init_hp_params_optimizer_state()


def _share(parameter: Any, value: torch.Tensor) -> torch.Tensor:
    """This rank's part of a tensor under ZeRO-3, the last one padded with zeros."""
    size = parameter.ds_tensor.numel()
    start = size * torch.distributed.get_rank(parameter.ds_process_group)
    share = torch.zeros(size, dtype=value.dtype, device=value.device)
    part = value.flatten()[start : start + size]
    share[: part.numel()] = part
    return share


def _parameter_itself(parameter: torch.Tensor) -> torch.Tensor:
    return parameter
