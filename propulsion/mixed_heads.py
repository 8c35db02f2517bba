"""Fully trained modules, such as classification heads, in a mixed batch."""

from __future__ import annotations

from typing import Any

import torch
from peft.utils import ModulesToSaveWrapper
from torch import nn

from propulsion.errors import PropulsionError
from propulsion.mixed_batch import MixedBatch
from propulsion.registration import register_with_peft


def mixed_head(
    wrapper: ModulesToSaveWrapper,
    batch: MixedBatch,
    values: torch.Tensor,
    *args: Any,
    **kwargs: Any,
) -> torch.Tensor:
    """Run each sample through its own adapter's copy of a module, whatever kind of module it is.

    PEFT does this for single layers only, and leaves out the copies that no sample uses; here they
    get a gradient of zero, as `MixedBatch` promises.

    Args:
        wrapper: holds the copies, and the base's own module.
        batch: which adapter each sample uses.
        values: shape (samples, ...).

    Raises:
        PropulsionError: the module does not see the samples in its first dimension.
    """
    if len(batch.names) == 1:
        return _run(_copy(wrapper, batch.names[0]), values, *args, **kwargs)
    if values.shape[0] != len(batch.adapter_names):
        raise PropulsionError(
            f"adapter_names names {len(batch.adapter_names)} samples, but a module of "
            f"modules_to_save works on values of shape {tuple(values.shape)}"
        )
    outputs, order, unused = [], [], []
    for name in batch.names:
        rows = [row for row, other in enumerate(batch.adapter_names) if other == name]
        if rows:
            chosen = values.index_select(0, batch.tensor(rows))
            outputs.append(_run(_copy(wrapper, name), chosen, *args, **kwargs))
            order += rows
        else:
            nothing = torch.zeros_like(values[:1])
            unused.append(_run(_copy(wrapper, name), nothing, *args, **kwargs))
    places = sorted(range(len(order)), key=order.__getitem__)
    result = torch.cat(outputs).index_select(0, batch.tensor(places))
    for output in unused:
        result = result + 0.0 * output.sum()
    return result


def _run(copy: nn.Module, values: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    # A copy that is trained may be wider than the frozen base around it.
    dtype = next((p.dtype for p in copy.parameters() if p.is_floating_point()), values.dtype)
    wide = values.to(dtype) if values.is_floating_point() else values
    output: torch.Tensor = copy(wide, *args, **kwargs)
    return output


def _copy(wrapper: ModulesToSaveWrapper, name: str) -> nn.Module:
    copies = wrapper.modules_to_save
    module: nn.Module = copies[name] if name in copies else wrapper.original_module  # noqa: SIM401
    return module


register_with_peft()
