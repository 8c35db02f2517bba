import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from propulsion.analysis import distances
from propulsion.errors import PropulsionError


def kernels(seed: int, size: int = 5, rank: int = 3) -> torch.Tensor:
    rows = torch.randn(size, rank, generator=torch.Generator().manual_seed(seed)).double()
    return rows @ rows.T


def test_kernels_that_differ_by_a_factor_are_alike() -> None:
    kernel = kernels(0)
    assert distances.relative_distance(kernel, 225 * kernel) == pytest.approx(0.0, abs=1e-12)
    assert distances.alignment(kernel, 225 * kernel) == pytest.approx(1.0)
    assert distances.centered_alignment(kernel, 225 * kernel) == pytest.approx(1.0)
    assert distances.off_diagonal_alignment(kernel, 225 * kernel) == pytest.approx(1.0)


def test_kernels_that_share_nothing_are_as_far_apart_as_can_be() -> None:
    first, second = torch.diag(torch.tensor([1.0, 0.0])), torch.diag(torch.tensor([0.0, 4.0]))
    assert distances.relative_distance(first, second) == pytest.approx(math.sqrt(2))
    assert distances.alignment(first, second) == 0.0


@given(st.integers(0, 1000), st.integers(0, 1000))
def test_distance_and_alignment_are_the_two_sides_of_an_angle(first: int, second: int) -> None:
    a, b = kernels(first), kernels(second)
    assert distances.relative_distance(a, b) ** 2 == pytest.approx(
        2 - 2 * distances.alignment(a, b), abs=1e-9
    )
    assert 0 <= distances.alignment(a, b) <= 1 + 1e-12


def test_centered_alignment_is_that_of_features_with_zero_mean() -> None:
    torch.manual_seed(0)
    first, second = torch.randn(6, 4).double(), torch.randn(6, 9).double()
    a, b = first - first.mean(dim=0), second - second.mean(dim=0)
    # Linear CKA in its form over features (Kornblith et al., 2019).
    expected = (a.T @ b).norm() ** 2 / ((a.T @ a).norm() * (b.T @ b).norm())
    shifted = first + 10.0
    found = distances.centered_alignment(shifted @ shifted.T, second @ second.T)
    assert found == pytest.approx(float(expected))


def test_off_diagonal_alignment_does_not_see_the_diagonal() -> None:
    first, second = kernels(1), kernels(2)
    found = distances.off_diagonal_alignment(first + 100 * torch.eye(5), second)
    assert found == pytest.approx(distances.off_diagonal_alignment(first, second))
    assert abs(found) < 0.99 < distances.alignment(first + 100 * torch.eye(5), torch.eye(5))


def test_zero_kernels_have_nothing_to_compare() -> None:
    with pytest.raises(PropulsionError, match="a kernel is zero"):
        distances.alignment(torch.zeros(2, 2), torch.eye(2))
    with pytest.raises(PropulsionError, match="all samples have the same"):
        distances.centered_alignment(torch.ones(2, 2), torch.eye(2))


def test_drift_is_relative_to_the_start() -> None:
    before = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    assert distances.drift(before, before) == 0.0
    assert distances.drift(before, 3 * before) == pytest.approx(2.0)
    assert distances.drift(
        before, before + torch.tensor([[0.0, 5.0], [0.0, 0.0]])
    ) == pytest.approx(1.0)
    with pytest.raises(PropulsionError, match="zero before training"):
        distances.drift(torch.zeros(2, 3), torch.ones(2, 3))
