"""The distribution of z, drawn for each kind of layer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from propulsion.analysis.inspection import NEAR_ONE, AdaptedModule, summarize

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BINS = 81
_COLUMNS = 4
_DPI = 150


def draw_scales(kinds: Mapping[str, Sequence[AdaptedModule]], title: str, path: Path) -> None:
    """Writes a PNG: one histogram of z per kind of layer, all on the same axes.

    Args:
        kinds: as `by_kind` gives them; at least one.
        title: of the figure.
        path: the file.
    """
    from matplotlib.figure import Figure

    columns = min(_COLUMNS, len(kinds))
    rows = math.ceil(len(kinds) / columns)
    figure = Figure(figsize=(0.8 + 3.6 * max(columns, 2), 1.1 + 2.6 * rows), layout="constrained")
    figure.suptitle(title, fontsize=14, fontweight="bold")
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flatten()
    edges = _edges(kinds)
    for axis, (kind, modules) in zip(axes, kinds.items(), strict=False):
        _histogram(axis, kind, modules, edges)
    for axis in axes[len(kinds) :]:
        axis.axis("off")
    # Where the last row is not full, the axis above its gap is the lowest of its column.
    for axis in axes[max(0, len(kinds) - columns) : len(kinds)]:
        axis.tick_params(labelbottom=True)
    below, above = NEAR_ONE
    figure.supxlabel(f"z = 1 + δ; near 1 (grey) is {below} to {above}", fontsize=11)
    figure.supylabel("share of values in each bin, %", fontsize=11)
    figure.savefig(path, format="png", dpi=_DPI)


def _edges(kinds: Mapping[str, Sequence[AdaptedModule]]) -> torch.Tensor:
    """Bins around 1 that hold every value, the middle one around 1 itself."""
    farthest = max(float(m.delta.abs().max()) for modules in kinds.values() for m in modules)
    reach = max(farthest, 1.25 * (NEAR_ONE[1] - 1.0)) * 1.02
    return torch.linspace(1.0 - reach, 1.0 + reach, _BINS + 1, dtype=torch.float64)


def _histogram(
    axis: Axes, kind: str, modules: Sequence[AdaptedModule], edges: torch.Tensor
) -> None:
    statistics = summarize(kind, modules)
    counts = torch.histogram(torch.cat([module.z for module in modules]), edges).hist
    axis.axvspan(*NEAR_ONE, color="0.9", zorder=0)
    axis.axvline(1.0, color="0.5", linewidth=0.8, zorder=1)
    axis.stairs((100.0 * counts / counts.sum()).numpy(), edges.numpy(), fill=True, color="#2166ac")
    axis.set_yscale("symlog", linthresh=0.1)
    axis.set_title(
        f"{kind}\n{statistics.mean:.4f} ± {statistics.std:.4f}, "
        f"{statistics.share_near_one:.1%} near 1",
        fontsize=10,
    )
