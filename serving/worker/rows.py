"""From an adapter's scales to its bank rows, refusing what does not fit the model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from propulsion.errors import AdapterCorruptError, BaseMismatchError, ConfigError
from propulsion.heads import SavedHead
from serving.worker.bank import Bank
from serving.worker.source import ServedScale
from serving.worker.targets import Part, ScaledLayer


@dataclass(frozen=True)
class AdapterRows:
    """One adapter on the host, ready to be copied into the bank.

    Attributes:
        rows: one (width,) row of s - 1, or two: where values are ≥ 0, and where they are < 0.
        touches: (num_layers,) bool, the layers in which a scale is not one.
        head: that answers its requests, if it has one of its own that the engine runs.
    """

    rows: tuple[torch.Tensor, ...]
    touches: np.ndarray
    head: SavedHead | None = None


class RowLayout:
    """Where the scales of each Hugging Face module go in a bank row.

    Args:
        layers: the layers of this rank.
        bank: the bank they were given columns in.
        elsewhere: module paths (prefixes) that other pipeline ranks hold.
        renamed: from a module path as saved to the served model's own.
    """

    def __init__(
        self,
        layers: Sequence[ScaledLayer],
        bank: Bank,
        elsewhere: Sequence[str] = (),
        renamed: Callable[[str], str] = lambda module: module,
    ):
        self._layers = layers
        self._bank = bank
        self._elsewhere = tuple(f"{prefix}." for prefix in elsewhere)
        self._renamed = renamed
        self._outputs = {
            module: (layer, part) for layer in layers for module, part in layer.outputs.items()
        }
        self._inputs = {
            module: (layer, part) for layer in layers for module, part in layer.inputs.items()
        }

    def rows(self, scales: Mapping[str, ServedScale]) -> AdapterRows:
        """The bank rows for scales by module path; what is not scaled is zero.

        Raises:
            BaseMismatchError: a module the model does not have, or one of another width.
            AdapterCorruptError: a scale is not finite, in the bank's dtype.
            ConfigError: two scales per output where the served model can apply only one.
        """
        num_rows = max((scale.offset.shape[0] for scale in scales.values()), default=1)
        rows = torch.zeros(num_rows, self._bank.width)
        for saved_name, scale in scales.items():
            module = self._renamed(saved_name)
            if f"{module}.".startswith(self._elsewhere):
                continue
            layer, part = self._place(module, scale)
            self._check(module, scale, layer, part)
            start = self._bank.columns(layer.name).start + part.offset
            place = rows[:, start : start + part.size]
            # An input's scale may meet the scale of the output it is folded into.
            place.copy_(place + (1 + place) * scale.offset[:, part.columns])
        finished = tuple(self._bank.host_row(row) for row in rows)
        if not all(row.isfinite().all() for row in finished):
            raise AdapterCorruptError(
                f"a scale of the adapter is beyond what the bank's {self._bank.rows.dtype} holds"
            )
        touches = [rows[:, self._bank.columns(layer.name)].any().item() for layer in self._layers]
        return AdapterRows(finished, np.array(touches, dtype=bool))

    def _place(self, module: str, scale: ServedScale) -> tuple[ScaledLayer, Part]:
        places = self._inputs if scale.scales_input else self._outputs
        if module in places:
            return places[module]
        side = "input" if scale.scales_input else "output"
        examples = ", ".join(repr(name) for name in list(places)[:3]) or "none"
        raise BaseMismatchError(
            f"the adapter scales the {side} of {module!r}, which the served base model does not "
            f"have (or not as a scalable layer); it has for example {examples}"
        )

    @staticmethod
    def _check(module: str, scale: ServedScale, layer: ScaledLayer, part: Part) -> None:
        if scale.offset.shape[1] != part.source_size:
            raise BaseMismatchError(
                f"the adapter's scale for {module!r} has shape {tuple(scale.offset.shape[1:])}, "
                f"the served base model is {part.source_size} wide there"
            )
        if not torch.isfinite(scale.offset).all():
            raise AdapterCorruptError(f"the adapter's scale for {module!r} is not finite")
        if scale.offset.shape[0] == 1:
            return
        if not layer.takes_pairs:
            raise ConfigError(
                f"the adapter has two scales per output of {module!r}, picked by the output's "
                "sign, which no tensor-parallel rank of the served model knows; use pooling mean "
                "or l2"
            )
        if scale.scales_input and not layer.scales_input:
            raise ConfigError(
                f"the adapter has two scales per input of {module!r}, picked by the input's sign, "
                "which is not known where a gated MLP is scaled; use pooling mean or l2"
            )
