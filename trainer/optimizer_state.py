"""Reads and writes the whole optimiser state, however ZeRO has partitioned it.

A checkpoint in terms of whole parameters resumes on any number of ranks and at any ZeRO stage.
Every function is collective: all ranks call it together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from trainer.optimizer import AdapterAdamW

MOMENTS = ("exp_avg", "exp_avg_sq")
Parameters = Mapping[str, torch.nn.Parameter]


def full_weights(engine: Any, parameters: Parameters) -> dict[str, torch.Tensor]:
    """Path → whole fp32 master weight, on the CPU."""
    from deepspeed.utils import safe_get_full_fp32_param

    read = _parameter_itself if engine.zero_optimization_stage() == 0 else safe_get_full_fp32_param
    return {path: read(parameter).detach().clone().cpu() for path, parameter in parameters.items()}


def full_moments(engine: Any, parameters: Parameters) -> dict[str, torch.Tensor]:
    """`<path>/<moment>` → whole tensor of AdamW's two moments, on the CPU."""
    from deepspeed.utils import safe_get_full_optimizer_state

    moments = {}
    for path, parameter in parameters.items():
        for moment in MOMENTS:
            if engine.zero_optimization_stage() == 0:
                value = engine.optimizer.state[parameter][moment]
            else:
                value = safe_get_full_optimizer_state(parameter, moment)
            moments[f"{path}/{moment}"] = value.detach().clone().cpu()
    return moments


def step_counts(engine: Any, optimizer: AdapterAdamW) -> dict[str, int]:
    """Adapter → steps that AdamW has made, 0 before the first."""
    return {
        adapter: int(optimizer.state[masters[0]]["step"].item())
        for adapter, masters in _masters(engine, optimizer).items()
    }


def load_weights(engine: Any, parameters: Parameters, weights: Mapping[str, torch.Tensor]) -> None:
    """Set whole master weights, and the weights that the model computes with."""
    from deepspeed.utils import safe_set_full_fp32_param, safe_set_local_fp32_param

    stage = engine.zero_optimization_stage()
    for path, parameter in parameters.items():
        value = weights[path].to(engine.device)
        if stage == 3:
            share = _share(parameter, value)
            safe_set_local_fp32_param(parameter, share)
            parameter.ds_tensor.data.copy_(share)  # type: ignore[attr-defined]
            continue
        parameter.data.copy_(value)
        if stage > 0:
            safe_set_full_fp32_param(parameter, value)


def load_moments(
    engine: Any,
    optimizer: AdapterAdamW,
    adapters: Mapping[str, Parameters],
    moments: Mapping[str, torch.Tensor],
    steps: Mapping[str, int],
) -> None:
    """Set the moments, and AdamW's own step counts, which its bias correction needs.

    Args:
        engine: of DeepSpeed.
        optimizer: that it steps.
        adapters: adapter → path → parameter.
        moments: as `full_moments` gives them.
        steps: as `step_counts` gives them; an adapter that is not in it is left as it is.
    """
    from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

    stage = engine.zero_optimization_stage()
    masters = _masters(engine, optimizer)
    for adapter, count in steps.items():
        for master in masters[adapter]:
            optimizer.state[master]["step"].fill_(float(count))
        for path, parameter in adapters[adapter].items():
            for moment in MOMENTS:
                value = moments[f"{path}/{moment}"].to(engine.device)
                if stage == 0:
                    optimizer.state[parameter][moment].copy_(value)
                elif stage == 3:
                    safe_set_local_optimizer_state(parameter, _share(parameter, value), moment)
                else:
                    safe_set_full_optimizer_state(parameter, value, moment)


def create_states(engine: Any, optimizer: AdapterAdamW) -> None:
    """What AdamW's first step would create.

    DeepSpeed links a parameter to its moments after the first step of the first adapter, when the
    others would have none yet, and one that joins late has none for long.
    """
    for masters in _masters(engine, optimizer).values():
        for master in masters:
            optimizer.state[master] = {
                "step": torch.tensor(0.0),
                **{moment: torch.zeros_like(master) for moment in MOMENTS},
            }
    if engine.zero_optimization_stage() in (1, 2):
        engine.optimizer._lazy_init_hp_params_optimizer_state()


def _masters(engine: Any, optimizer: AdapterAdamW) -> dict[str, list[torch.Tensor]]:
    """Adapter → the tensors that AdamW steps: its parameters, or this rank's flat parts of them."""
    zero = engine.optimizer
    stage = engine.zero_optimization_stage()
    masters: dict[str, list[torch.Tensor]] = {g["adapter"]: [] for g in optimizer.param_groups}
    names = list(masters)
    if stage == 0:
        for group in optimizer.param_groups:
            masters[group["adapter"]] += group["params"]
    elif stage == 3:
        for index, master in enumerate(zero.fp32_partitioned_groups_flat):
            masters[names[zero.sub_group_to_group_id[index]]].append(master)
    else:
        for name, master in zip(names, zero.single_partition_of_fp32_groups, strict=True):
            masters[name].append(master)
    return masters


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
