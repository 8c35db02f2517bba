"""The multiplication itself: a hook on each scaled layer.

The model keeps its modules and parameters, so weight reloading, quantisation and vLLM's own passes
see what they always saw.
"""

from typing import Any

import torch

from propulsion.kernels import gather_scale_
from serving.worker.bank import Bank
from serving.worker.targets import ScaledLayer


class LayerScale:
    """What a layer's hook reads: its columns of the bank, and whether the batch scales it.

    Attributes:
        rows: (num_rows, width) view of the bank.
        active: whether a token of the batch has a scale here other than one.
    """

    def __init__(self, layer: ScaledLayer, bank: Bank):
        self.rows = bank.layer(layer.name)
        self.active = True
        self._bank = bank

    def __call__(self, values: torch.Tensor) -> None:
        """Scale in place the values of all tokens of the batch, (num_tokens, …, width)."""
        gather_scale_(values, *self.operands(values.shape[0]))

    def operands(self, num_tokens: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """What kernels of `propulsion.kernels` take of a batch: bank, slots, negative slots."""
        bank = self._bank
        negative = bank.negative_slots[:num_tokens] if bank.has_pairs else None
        return self.rows, bank.token_slots[:num_tokens], negative


def attach(layer: ScaledLayer, bank: Bank, *, captured: bool) -> LayerScale:
    """Make the layer scale its output (or input) by the bank rows of the tokens it is given.

    Args:
        layer: where.
        bank: the rows.
        captured: whether the model is compiled or captured in a CUDA graph. Then the hook has no
            branch on the batch and reads tensors of fixed address; else it skips a layer that no
            adapter of the batch scales.
    """
    scale = LayerScale(layer, bank)

    def scale_output(module: Any, args: Any, output: Any) -> None:
        if captured or scale.active:
            scale(output[0] if isinstance(output, tuple) else output)

    def scale_input(module: Any, args: Any) -> None:
        if captured or scale.active:
            scale(args[0])

    if layer.scales_input:
        layer.module.register_forward_pre_hook(scale_input)
    else:
        layer.module.register_forward_hook(scale_output)
    return scale
