"""Heat maps of kernels and Jacobians, as in the paper's Appendices B and C."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from propulsion.analysis.comparison import Comparison, Drift
from propulsion.analysis.distances import normalized

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

_SIGNED, _SIZE = "RdBu_r", "viridis"
_MAX_TICKS = 16
_DPI = 150


def draw_kernels(comparison: Comparison, path: Path) -> None:
    """Writes a PNG: the kernels of full fine-tuning and Propulsion, and their absolute difference.

    Each kernel is divided by its Frobenius norm.
    """
    distances = comparison.distances
    figure, axes = _figure(
        rows=1,
        title="Neural tangent kernels at the start",
        numbers=f"relative distance {distances.relative_distance:.3f}   ·   "
        f"alignment {distances.alignment:.3f}   ·   "
        f"centered {distances.centered_alignment:.3f}   ·   "
        f"off the diagonal {distances.off_diagonal_alignment:.3f}",
    )
    _kernel_row(
        figure,
        axes[0],
        normalized(comparison.full),
        normalized(comparison.propulsion),
        titles=("Full fine-tuning, K / |K|", "Propulsion, K / |K|", "Absolute difference"),
    )
    figure.savefig(path, format="png", dpi=_DPI)


def draw_drift(comparison: Comparison, drift: Drift, path: Path) -> None:
    """Writes a PNG: Propulsion's kernel and Jacobian before and after training, and the difference.

    Kernels are divided by the Frobenius norm of the one before; of the Jacobian, the norm of each
    sample's gradient for each module is drawn.
    """
    figure, axes = _figure(
        rows=2,
        title="Propulsion's gradients before and after training",
        numbers=f"drift of the Jacobian {drift.jacobian:.3f}   ·   "
        f"drift of the kernel {drift.kernel:.3f}",
    )
    norm = torch.linalg.matrix_norm(comparison.propulsion)
    _kernel_row(
        figure,
        axes[0],
        comparison.propulsion / norm,
        drift.kernel_after / norm,
        titles=("Kernel before, K / |K|", "Kernel after, K' / |K|", "Absolute difference"),
    )
    _jacobian_row(figure, axes[1], comparison, drift)
    figure.savefig(path, format="png", dpi=_DPI)


def _figure(rows: int, title: str, numbers: str) -> tuple[Figure, list[list[Axes]]]:
    # Not through pyplot, which keeps figures in a global list and may want a display.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 0.8 + 3.8 * rows), layout="constrained")
    figure.suptitle(f"{title}\n{numbers}", fontsize=13)
    return figure, [list(row) for row in figure.subplots(rows, 3, squeeze=False)]


def _kernel_row(
    figure: Figure,
    axes: list[Axes],
    first: torch.Tensor,
    second: torch.Tensor,
    titles: tuple[str, str, str],
) -> None:
    limit = float(torch.stack((first, second)).abs().max())
    difference = (first - second).abs()
    # Kernels that differ by rounding alone are to look alike.
    largest = max(float(difference.max()), 1e-6 * limit)
    for axis, matrix, title in zip(axes, (first, second, difference), titles, strict=True):
        signed = matrix is not difference
        image = axis.imshow(
            matrix.numpy(),
            cmap=_SIGNED if signed else _SIZE,
            vmin=-limit if signed else 0.0,
            vmax=limit if signed else largest,
            interpolation="nearest",
        )
        figure.colorbar(image, cax=_beside(axis))
        _label(axis.yaxis, len(matrix), "sample")
        _label(axis.xaxis, len(matrix), "sample")
        axis.set_title(title, fontsize=12)


def _jacobian_row(figure: Figure, axes: list[Axes], comparison: Comparison, drift: Drift) -> None:
    limit = float(torch.stack((comparison.norms, drift.norms_after)).max())
    largest = max(float(drift.norms_of_difference.max()), 1e-6 * limit)
    panels = (
        (comparison.norms, limit, "Jacobian before"),
        (drift.norms_after, limit, "Jacobian after"),
        (drift.norms_of_difference, largest, "Difference of the Jacobians"),
    )
    for axis, (norms, top, title) in zip(axes, panels, strict=True):
        image = axis.imshow(
            norms.numpy(), cmap=_SIZE, vmin=0.0, vmax=top, aspect="auto", interpolation="nearest"
        )
        figure.colorbar(image, cax=_beside(axis), label="norm of the gradient")
        _label(axis.yaxis, len(norms), "sample")
        _label(axis.xaxis, norms.shape[1], "adapted layer, in the order of the model")
        axis.set_title(title, fontsize=12)


def _beside(axis: Axes) -> Axes:
    """Room for a colour bar, as high as the heat map however that is shaped."""
    return axis.inset_axes((1.03, 0.0, 0.05, 1.0))


def _label(axis: Axis, count: int, name: str) -> None:
    step = -(-count // _MAX_TICKS)
    places = list(range(0, count, step))
    axis.set_ticks(places, [str(place + 1) for place in places], fontsize=8)
    axis.set_label_text(name)
