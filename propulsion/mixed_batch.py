"""A batch in which every sample names its own adapter."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from propulsion.errors import PropulsionError

BASE = "__base__"
"""Names the base model in `adapter_names`, as in PEFT."""


class MixedBatch:
    """Which adapter each sample of a batch uses, as slots into a stack of scales.

    Args:
        adapter_names: adapter of each sample, or `BASE`.
        device: where the model's activations are.
        expansion: copies of each sample that generation makes, next to each other: beams or
            returned sequences. Layers see either the samples or their copies.
        also: adapters that no sample need use, but that take part all the same, with a gradient of
            zero: ranks that train together must reduce the gradients of the same parameters.
    """

    def __init__(
        self,
        adapter_names: Sequence[str],
        device: torch.device,
        expansion: int = 1,
        also: Sequence[str] = (),
    ) -> None:
        self.adapter_names = list(adapter_names)
        self.names = sorted({*adapter_names, *also})
        """Distinct adapters; the slot of each is its place here."""
        self._device = device
        self._tensors: dict[tuple[int, ...], torch.Tensor] = {}
        self._slots = self.tensor([self.names.index(name) for name in adapter_names])
        self._expanded = self._slots.repeat_interleave(expansion)

    def tensor(self, values: Sequence[int]) -> torch.Tensor:
        """`values` as int64 on the device; the same ones are copied there once per batch."""
        key = tuple(values)
        if key not in self._tensors:
            self._tensors[key] = torch.tensor(key, dtype=torch.int64, device=self._device)
        return self._tensors[key]

    def slots(self, values: torch.Tensor) -> torch.Tensor:
        """Slot of each run of rows of a layer's `values`, shape (..., d).

        Returns:
            int64, one per sample or copy, as `scale_by_slot` takes it.

        Raises:
            PropulsionError: the layer does not see the samples in its first dimension.
        """
        num_samples, first = len(self._slots), values.shape[0]
        if first == len(self._expanded):
            return self._expanded
        if first == num_samples:
            return self._slots
        if values.ndim == 2 and first % len(self._expanded) == 0:
            # Tokens of all samples in a row, as OPT's feed-forward layers take them.
            return self._expanded
        raise PropulsionError(
            f"adapter_names names {num_samples} samples, but a layer works on values of shape "
            f"{tuple(values.shape)}: either the batch has another size, or the samples share what "
            "the layer computes and cannot use different adapters there; then exclude the layer, "
            "or run the adapters one after the other"
        )
