"""What a saved adapter does, in numbers: its z = 1 + δ and its effective scales."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from propulsion.errors import AdapterCorruptError

NEAR_ONE = (0.98, 1.02)
"""Where the paper finds the trained z."""


@dataclass(frozen=True)
class AdaptedModule:
    """One scaled layer of a saved adapter."""

    name: str
    """Path of the layer in the base model."""
    delta: torch.Tensor
    """Offsets δ = z - 1, shape (num_vectors, d), fp32."""
    scale: torch.Tensor
    """Effective scale s, shape (rows, d) or (d,), fp32."""

    @property
    def z(self) -> torch.Tensor:
        """1 + δ, all vectors in a row, shape (num_vectors * d,), fp64."""
        return 1.0 + self.delta.double().flatten()


@dataclass(frozen=True)
class ScaleStatistics:
    """z and s over one module or several."""

    name: str
    modules: int
    values: int
    mean: float
    std: float
    """Of the values themselves, not an estimate from a sample."""
    minimum: float
    maximum: float
    share_near_one: float
    """Share of the z that lie within `NEAR_ONE`, 0 to 1."""
    scale_minimum: float
    scale_maximum: float


def read_modules(folder: Path) -> list[AdaptedModule]:
    """The scaled layers of a saved adapter, blocks in ascending order.

    Raises:
        AdapterCorruptError: the folder does not hold a Propulsion adapter, or a value is not
            finite.
    """
    from propulsion.effective import saved_scales

    modules = [
        AdaptedModule(name, saved.delta, saved.scale())
        for name, saved in saved_scales(folder).items()
    ]
    for module in modules:
        for what, values in (("z", module.delta), ("scales", module.scale)):
            broken = int((~values.isfinite()).sum())
            if broken:
                raise AdapterCorruptError(
                    f"{folder}: {module.name}: {broken} of {values.numel()} {what} are not finite: "
                    "the training diverged; train again with a lower learning rate or degree"
                )
    return sorted(modules, key=lambda module: _natural_order(module.name))


def by_kind(modules: Sequence[AdaptedModule]) -> dict[str, list[AdaptedModule]]:
    """Modules of the same place in each block, by the name of that place."""
    kinds: dict[str, list[AdaptedModule]] = {}
    for module in modules:
        kinds.setdefault(layer_kind(module.name), []).append(module)
    return kinds


def layer_kind(module: str) -> str:
    """What follows the last number of a block in a path; `model.layers.3.mlp.fc1` is `mlp.fc1`."""
    parts = module.split(".")
    numbers = [place for place, part in enumerate(parts[:-1]) if part.isdecimal()]
    return ".".join(parts[numbers[-1] + 1 :]) if numbers else module


def summarize(name: str, modules: Sequence[AdaptedModule]) -> ScaleStatistics:
    """Statistics over all values of `modules`, of which there must be one at least."""
    z = torch.cat([module.z for module in modules])
    scale = torch.cat([module.scale.flatten() for module in modules])
    # δ is compared, since 1 + δ has lost the last digits of a bound like 0.02.
    below, above = NEAR_ONE
    delta = torch.cat([module.delta.flatten() for module in modules])
    near = (delta >= torch.tensor(below - 1.0)) & (delta <= torch.tensor(above - 1.0))
    return ScaleStatistics(
        name=name,
        modules=len(modules),
        values=z.numel(),
        mean=float(z.mean()),
        std=float(z.std(correction=0)),
        minimum=float(z.min()),
        maximum=float(z.max()),
        share_near_one=float(near.double().mean()),
        scale_minimum=float(scale.min()),
        scale_maximum=float(scale.max()),
    )


def _natural_order(module: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in module.split(".")]
