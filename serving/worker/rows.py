"""From an adapter's scale offsets to its bank row, refusing what does not fit the model."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from propulsion.effective import saved_scales
from propulsion.errors import AdapterCorruptError, BaseMismatchError, ConfigError
from serving.worker.bank import Bank
from serving.worker.layers import ScaledLayer


def served_offsets(folder: str | Path) -> dict[str, torch.Tensor]:
    """The offsets s - 1 of a saved adapter by module path, each of shape (d_out,), fp32.

    Raises:
        AdapterCorruptError: a file is missing, truncated or not a Propulsion adapter.
        ConfigError: the adapter is of a kind that the server does not apply yet.
    """
    offsets = {}
    for module, saved in saved_scales(folder).items():
        if saved.scaling.is_pair:
            raise ConfigError(
                f"{folder} pools by {saved.scaling.pooling}, so {module!r} has two scales per "
                "output; the server applies one. Train with pooling 'mean' or 'l2' to serve it"
            )
        if saved.scaling.scales_input:
            raise ConfigError(
                f"{folder} scales the input of {module!r}; the server scales outputs alone. Merge "
                "it into the base to serve it"
            )
        offsets[module] = saved.offset()[0]
    return offsets


class RowLayout:
    """Where the offsets s - 1 of each Hugging Face module go in a bank row.

    Args:
        layers: the layers of this rank.
        bank: the bank they were given columns in.
        elsewhere: module paths (prefixes) that other pipeline ranks hold.
    """

    def __init__(self, layers: Sequence[ScaledLayer], bank: Bank, elsewhere: Sequence[str] = ()):
        self._bank = bank
        self._elsewhere = tuple(f"{prefix}." for prefix in elsewhere)
        self._parts = {
            source: (bank.columns(layer.name).start + part.offset, part)
            for layer in layers
            for source, part in layer.parts.items()
        }

    def row(self, offsets: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The (width,) host row for offsets s - 1 by module path; untargeted columns are zero.

        Raises:
            BaseMismatchError: a module the model does not have, or one of another width.
            AdapterCorruptError: an offset that is not finite.
        """
        row = self._bank.host_row()
        for module, offset in offsets.items():
            if module.startswith(self._elsewhere):
                continue
            if module not in self._parts:
                raise BaseMismatchError(
                    f"the adapter scales {module!r}, which the served base model does not have "
                    f"(or not as a scalable layer); it has for example {self._examples()}"
                )
            start, part = self._parts[module]
            if offset.shape != (part.source_size,):
                raise BaseMismatchError(
                    f"the adapter's scale for {module!r} has shape {tuple(offset.shape)}, the "
                    f"served base model's output there is {part.source_size} wide"
                )
            if not torch.isfinite(offset).all():
                raise AdapterCorruptError(f"the adapter's scale for {module!r} is not finite")
            source = offset[part.source_offset : part.source_offset + part.size]
            row[start : start + part.size] = source
        return row

    def _examples(self) -> str:
        return ", ".join(repr(name) for name in list(self._parts)[:3])
