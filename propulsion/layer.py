"""The scaled layer: a frozen layer whose output (or input) is multiplied by z^k."""

from __future__ import annotations

import warnings
import weakref
from collections import defaultdict
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer, check_adapters_to_merge
from torch import nn

from propulsion.config import PropulsionConfig
from propulsion.errors import PropulsionError
from propulsion.folding import fold_input, fold_output, input_width, output_width
from propulsion.functional import scale_offset
from propulsion.initialization import initial_delta
from propulsion.kernels import scale_by_slot
from propulsion.mixed_batch import MixedBatch
from propulsion.offsets import Offsets
from propulsion.registration import register_with_peft
from propulsion.scaling import Scaling, layer_scaling


class PropulsionLayer(nn.Module, BaseTunerLayer):
    """Wraps a layer so that its output V, bias included, becomes V ⊙ s, with s from z^k.

    Takes `torch.nn.Linear` and the quantised layers that stand in for it, transformers' `Conv1D`,
    `torch.nn.Embedding`, LayerNorm and RMSNorm. The parameter of each adapter is the offset
    δ = z - 1, shape (num_vectors, d_out), fp32 on the base layer's device. Several active adapters
    multiply.

    Args:
        base_layer: the frozen layer, or another tuner's layer around it.
        adapter_name: the first adapter.
        config: what that adapter is.
        scaling: what it does to this layer; taken from `config` if not given.
        columns: the outputs that belong to `scaling.part`.
        module: path of the layer in the model, which seeds what is random at the start.
    """

    adapter_layer_names = ("propulsion_delta",)
    other_param_names = ("scaling",)

    def __init__(
        self,
        base_layer: nn.Module,
        adapter_name: str,
        config: PropulsionConfig,
        scaling: Scaling | None = None,
        columns: list[int] | None = None,
        module: str = "",
    ) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.propulsion_delta = Offsets()
        self.scaling: dict[str, Scaling] = {}
        self.saves_result = False
        """Whether backward may use the scaled output instead of the output; see `scale_by_slot`."""
        self.mixed_batch: MixedBatch | None = None
        """Set while a forward pass is given `adapter_names`."""
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        self._before_merge: weakref.ref[nn.Parameter] | None = None
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, config, scaling, columns, module)

    def update_layer(
        self,
        adapter_name: str,
        config: PropulsionConfig,
        scaling: Scaling | None = None,
        columns: list[int] | None = None,
        module: str = "",
    ) -> None:
        """Add an adapter, or replace it by a fresh one."""
        if scaling is None:
            scaling = layer_scaling(config, module)
        base = self.get_base_layer()
        width = input_width(base) if scaling.scales_input else output_width(base)
        if columns is not None:
            width = len(columns)
            index = torch.tensor(columns, device=self._device())
            self.register_buffer(f"propulsion_{scaling.part}", index, persistent=False)
        delta = initial_delta(
            scaling.num_vectors, width, scaling.degree, config.init, config.init_seed, module
        )
        self.scaling[adapter_name] = scaling
        self.propulsion_delta[adapter_name] = nn.Parameter(delta.to(self._device()))
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def scale(self, adapter_name: str) -> torch.Tensor:
        """The effective scale of an adapter, shape (rows, d), fp32, differentiable.

        One row, or for max and min pooling of several vectors two: where V ≥ 0, where V < 0.
        """
        return self._scales([adapter_name])[0]

    def offset(self, adapter_name: str) -> torch.Tensor:
        """s - 1 of an adapter, rounded once from fp64; 0 if it leaves the layer alone.

        Shape (rows, d), fp32, without a gradient.
        """
        scaling = self.scaling.get(adapter_name)
        if scaling is None:
            return torch.zeros(1, 1, device=self._device())
        delta = self.propulsion_delta[adapter_name].detach()
        offset = scale_offset(delta, scaling.degree, scaling.pooling)
        return self._whole(offset, self.columns(adapter_name), 0.0)

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if self.disable_adapters and self.merged:
            self.unmerge()
        if self.disable_adapters or self.merged:
            if self.mixed_batch is not None and self.merged:
                raise PropulsionError(
                    "adapter_names cannot be given while an adapter is merged: call "
                    "unmerge_adapter() first"
                )
            result: torch.Tensor = self.base_layer(x, *args, **kwargs)
            return result
        output = self.base_layer(self._scaled(x, is_input=True), *args, **kwargs)
        return self._scaled(output, is_input=False)

    def _scaled(self, values: torch.Tensor, *, is_input: bool) -> torch.Tensor:
        if self.mixed_batch is not None:
            return self._scaled_by_sample(values, self.mixed_batch, is_input)
        for name in self.active_adapters:
            if name in self.scaling and self.scaling[name].scales_input == is_input:
                values = scale_by_slot(
                    values,
                    self._scales([name]),
                    saves_result=self._saves_result(values, [self.scaling[name]]),
                )
        return values

    def _scaled_by_sample(
        self, values: torch.Tensor, batch: MixedBatch, is_input: bool
    ) -> torch.Tensor:
        alike: dict[tuple[Any, ...], list[int]] = defaultdict(list)
        for slot, name in enumerate(batch.names):
            scaling = self.scaling.get(name)
            if scaling is not None and scaling.scales_input == is_input:
                alike[scaling[1:]].append(slot)
        if not alike:
            return values
        stacks = [
            (slots, self._scales([batch.names[slot] for slot in slots], batch))
            for slots in alike.values()
        ]
        rows = max(stack.shape[1] for _, stack in stacks)
        bank = stacks[0][1].new_ones(len(batch.names), rows, stacks[0][1].shape[2])
        for slots, stack in stacks:
            wide = stack.expand(-1, rows, -1)
            bank = (
                wide if len(slots) == len(bank) else bank.index_copy(0, batch.tensor(slots), wide)
            )
        scalings = [self.scaling[batch.names[slot]] for slots, _ in stacks for slot in slots]
        return scale_by_slot(
            values,
            bank,
            None if len(bank) == 1 else batch.slots(values),
            saves_result=self._saves_result(values, scalings),
        )

    def _saves_result(self, values: torch.Tensor, scalings: list[Scaling]) -> bool:
        return (
            self.saves_result
            and values.dtype in (torch.float32, torch.bfloat16)
            and all(s.has_no_gradient_at_zero and not s.scales_input for s in scalings)
        )

    def _scales(self, names: list[str], batch: MixedBatch | None = None) -> torch.Tensor:
        """Scales of adapters that differ in degree only, shape (len(names), rows, d)."""
        first = self.scaling[names[0]]
        degrees = [self.scaling[name].degree for name in names]
        degree: int | torch.Tensor = first.degree
        if batch is not None and any(other != first.degree for other in degrees):
            degree = batch.tensor(degrees)[:, None, None]
        scale = self.propulsion_delta(names, degree, first.pooling)
        return self._whole(scale, self.columns(names[0]), 1.0)

    def _whole(
        self, part: torch.Tensor, columns: torch.Tensor | None, elsewhere: float
    ) -> torch.Tensor:
        if columns is None:
            return part
        width = output_width(self.get_base_layer())
        return part.new_full((*part.shape[:-1], width), elsewhere).index_copy(-1, columns, part)

    def columns(self, adapter_name: str) -> torch.Tensor | None:
        """Indices of the outputs that an adapter scales, int64; None for all of them."""
        part = self.scaling[adapter_name].part
        return None if part is None else self.get_buffer(f"propulsion_{part}")

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Fold the scale into the weights: W' = diag(s) W, b' = s ⊙ b, computed in fp32.

        The layer gets weights of its own: what was tied to them keeps the old ones.

        Raises:
            PropulsionError: the adapter pools by max or min, which no weight can do; with
                `safe_merge`, a merged weight is not finite; or the weights cannot be changed.
                Nothing is merged then.
        """
        names = [n for n in check_adapters_to_merge(self, adapter_names) if n in self.scaling]
        for name in names:
            self.check_mergeable(name)
        for name in names:
            scale = self.scale(name).detach()[0]
            self._fold(scale, name, check=safe_merge)
            self.merged_adapters.append(name)

    def check_mergeable(self, adapter_name: str) -> None:
        """Raise `PropulsionError` if merging this adapter is not possible."""
        scaling = self.scaling[adapter_name]
        if scaling.is_pair:
            raise PropulsionError(
                f"adapter {adapter_name!r} pools by {scaling.pooling}, which scales positive and "
                "negative outputs differently: no weight does that, so it cannot be merged. Use "
                "it unmerged, or train with pooling 'mean' or 'l2'"
            )
        if hasattr(self.get_base_layer().weight, "ds_id"):
            raise PropulsionError(
                f"adapter {adapter_name!r} cannot be merged while DeepSpeed ZeRO-3 partitions the "
                "base: save the adapter, and merge it into a base loaded without DeepSpeed"
            )
        if self.quantization_backend is not None and not self.quantization_backend.supports_merge:
            raise PropulsionError(
                f"adapter {adapter_name!r} cannot be merged into a "
                f"{self.quantization_backend.backend_name} base: its weights cannot be rewritten"
            )

    def unmerge(self) -> None:
        """Take the merged scales out again.

        Exact where the weight was tied to one that is still there, and the tie is back then; else
        by division, exact up to rounding.

        Raises:
            PropulsionError: a merged scale has a zero, which no division undoes.
        """
        if not self.merged:
            warnings.warn("Already unmerged. Nothing to do.", stacklevel=2)
            return
        for name in self.merged_adapters:
            if (self.scale(name) == 0).any():
                raise PropulsionError(
                    f"adapter {name!r} has a zero scale and cannot be unmerged: reload the base"
                )
        while self.merged_adapters:
            name = self.merged_adapters[-1]
            self._fold(1.0 / self.scale(name).detach()[0], name, check=False)
            self.merged_adapters.pop()
        before = None if self._before_merge is None else self._before_merge()
        if before is not None:
            self.get_base_layer().weight = before

    def _fold(self, factor: torch.Tensor, adapter_name: str, *, check: bool) -> None:
        base: Any = self.get_base_layer()
        scales_input = self.scaling[adapter_name].scales_input
        fold = fold_input(base) if scales_input else fold_output(base)
        old_weight = self.get_base_weight()
        weight = fold(old_weight, factor).to(old_weight.dtype)
        old_bias = None if scales_input else getattr(base, "bias", None)
        bias = None if old_bias is None else (old_bias.data * factor).to(old_bias.dtype)
        if check and not all(t is None or bool(t.isfinite().all()) for t in (weight, bias)):
            raise PropulsionError(
                f"merging adapter {adapter_name!r} gives weights that are not finite; it is broken"
            )
        if self.quantization_backend is not None:
            self.set_base_weight(weight)
        else:
            if not self.merged_adapters:
                self._before_merge = weakref.ref(base.weight)
            base.weight = nn.Parameter(weight, requires_grad=base.weight.requires_grad)
        if bias is not None:
            base.bias = nn.Parameter(bias, requires_grad=base.bias.requires_grad)

    def _device(self) -> torch.device:
        device, _ = self._get_base_layer_device_and_dtype(self.get_base_layer())  # type: ignore[no-untyped-call]
        return device if device is not None else next(self.get_base_layer().parameters()).device


register_with_peft()
