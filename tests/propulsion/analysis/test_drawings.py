from dataclasses import replace
from pathlib import Path

import numpy
import pytest
import torch
from matplotlib.image import imread

from propulsion.analysis.comparison import Comparison, Distances, Drift
from propulsion.analysis.heat_maps import draw_drift, draw_kernels
from propulsion.analysis.inspection import AdaptedModule, by_kind
from propulsion.analysis.scale_plot import draw_scales
from propulsion.errors import PropulsionError


def kernels(num_samples: int, num_modules: int = 7) -> Comparison:
    torch.manual_seed(0)
    first, second = torch.randn(2, num_samples, 5).double()
    norms = torch.rand(num_samples, num_modules)
    return Comparison(
        outputs=torch.zeros(num_samples),
        full=first @ first.T,
        propulsion=second @ second.T,
        modules=[f"layers.{index}.fc" for index in range(num_modules)],
        norms=norms,
        distances=Distances(0.5, 0.9, 0.8, 0.7),
        drift=Drift(
            jacobian=0.1,
            kernel=0.2,
            outputs_after=torch.zeros(num_samples),
            kernel_after=first @ first.T,
            norms_after=norms.flip(0),
            norms_of_difference=(norms - norms.flip(0)).abs(),
        ),
    )


def colours(path: Path) -> numpy.ndarray:
    """Pixels, shape (height, width, 3), 0 to 1."""
    image: numpy.ndarray = imread(path, format="png")[..., :3]
    return image


def share_of_colour(image: numpy.ndarray) -> float:
    """Pixels that are no grey, black or white."""
    return float((image.max(axis=2) - image.min(axis=2) > 0.1).mean())


@pytest.mark.parametrize("num_samples", [2, 60])
def test_kernels_are_drawn_as_three_maps_side_by_side(tmp_path: Path, num_samples: int) -> None:
    draw_kernels(kernels(num_samples), tmp_path / "a")
    image = colours(tmp_path / "a")
    assert image.shape[1] > 2 * image.shape[0] > 1000
    for third in numpy.array_split(image, 3, axis=1):
        assert share_of_colour(third) > 0.1


def test_kernels_are_drawn_by_their_direction_and_then_subtracted(tmp_path: Path) -> None:
    comparison = kernels(8)
    larger = replace(comparison, full=1e6 * comparison.full)
    alike = replace(comparison, propulsion=3 * comparison.full)
    for name, drawn in (("a", comparison), ("larger", larger), ("alike", alike)):
        draw_kernels(drawn, tmp_path / name)
    assert numpy.array_equal(colours(tmp_path / "a"), colours(tmp_path / "larger"))
    tones = [
        len(numpy.unique(map_of_difference(tmp_path / name).reshape(-1, 3), axis=0))
        for name in ("a", "alike")
    ]
    assert tones[0] > 20
    assert tones[1] == 1


def map_of_difference(path: Path) -> numpy.ndarray:
    """The middle of the third map."""
    return numpy.array_split(colours(path), 3, axis=1)[2][200:500, 100:400]


def test_a_zero_kernel_is_not_drawn(tmp_path: Path) -> None:
    comparison = kernels(8)
    with pytest.raises(PropulsionError, match="a kernel is zero"):
        draw_kernels(replace(comparison, full=0 * comparison.full), tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_drift_is_drawn_as_kernels_above_jacobians(tmp_path: Path) -> None:
    comparison = kernels(16, num_modules=224)
    assert comparison.drift is not None
    draw_drift(comparison, comparison.drift, tmp_path / "a")
    image = colours(tmp_path / "a")
    for half in numpy.array_split(image, 2, axis=0):
        for third in numpy.array_split(half, 3, axis=1):
            assert share_of_colour(third) > 0.15


def blocks(kinds: int, num_blocks: int) -> list[AdaptedModule]:
    torch.manual_seed(0)
    return [
        AdaptedModule(f"layers.{block}.kind{kind}", 0.01 * torch.randn(1, 64), torch.ones(1, 64))
        for block in range(num_blocks)
        for kind in range(kinds)
    ]


@pytest.mark.parametrize(("kinds", "num_blocks"), [(1, 1), (7, 32), (9, 1)])
def test_every_kind_of_layer_has_its_histogram(tmp_path: Path, kinds: int, num_blocks: int) -> None:
    draw_scales(by_kind(blocks(kinds, num_blocks)), "title", tmp_path / "a")
    image = colours(tmp_path / "a")
    columns, rows = min(kinds, 4), -(-kinds // 4)
    panels = [
        panel
        for row in numpy.array_split(image, rows, axis=0)
        for panel in numpy.array_split(row, columns, axis=1)
    ]
    coloured = [share_of_colour(panel) > 0.03 for panel in panels]
    assert coloured == [index < kinds for index in range(len(panels))]
    if kinds < len(panels):
        height, width, _ = panels[-1].shape
        inside = panels[-1][int(0.4 * height) : int(0.7 * height), int(0.05 * width) :]
        assert (inside == 1.0).all(), "an empty frame"


def test_a_fresh_adapter_has_a_histogram_too(tmp_path: Path) -> None:
    fresh = AdaptedModule("fc", torch.zeros(1, 8), torch.ones(1, 8))
    draw_scales(by_kind([fresh]), "title", tmp_path / "a")
    assert 0.001 < share_of_colour(colours(tmp_path / "a")) < 0.05
