"""How far apart two kernels are, and how far training moved one: pure functions of matrices."""

from __future__ import annotations

import torch

from propulsion.errors import PropulsionError


def normalized(matrix: torch.Tensor) -> torch.Tensor:
    """`matrix` divided by its Frobenius norm.

    Raises:
        PropulsionError: it is zero.
    """
    norm: torch.Tensor = torch.linalg.matrix_norm(matrix)
    if norm == 0:
        raise PropulsionError(
            "a kernel is zero, or is once it is centered or its diagonal is taken out, so there is "
            "nothing to compare: gradients vanish, as they do at z = 0, or all samples have the "
            "same; choose other samples, or an adapter that starts at the base model"
        )
    return matrix / norm


def relative_distance(first: torch.Tensor, second: torch.Tensor) -> float:
    """|A/|A| - B/|B|| in Frobenius norms, relative to |A/|A|| = 1.

    0 for kernels that differ by a factor alone; at most √2 for positive semi-definite ones.
    Raises `PropulsionError` if one is zero.
    """
    return float(torch.linalg.matrix_norm(normalized(first) - normalized(second)))


def alignment(first: torch.Tensor, second: torch.Tensor) -> float:
    """Kernel alignment <A, B> / (|A| |B|) (Cristianini et al., 2001); 1 for equal directions.

    Raises `PropulsionError` if one is zero.
    """
    return float((normalized(first) * normalized(second)).sum())


def centered_alignment(first: torch.Tensor, second: torch.Tensor) -> float:
    """Alignment of HAH and HBH, with H = I - 11ᵀ/n (CKA; Cortes et al., 2012).

    Raises `PropulsionError` if one is zero.
    """
    return alignment(_centered(first), _centered(second))


def off_diagonal_alignment(first: torch.Tensor, second: torch.Tensor) -> float:
    """Alignment of A and B without their diagonals, which otherwise outweigh what samples share.

    Raises `PropulsionError` if nothing is left of one.
    """
    return alignment(first - first.diag().diag(), second - second.diag().diag())


def drift(before: torch.Tensor, after: torch.Tensor) -> float:
    """|after - before| / |before| in Frobenius norms, of Jacobians or of kernels (Appendix C).

    Raises:
        PropulsionError: `before` is zero.
    """
    norm = torch.linalg.matrix_norm(before, dtype=torch.float64)
    if norm == 0:
        raise PropulsionError(
            "all gradients are zero before training, so there is no drift relative to them: the "
            "adapter does not start at the base model (see its init)"
        )
    return float(torch.linalg.matrix_norm(after - before, dtype=torch.float64) / norm)


def _centered(matrix: torch.Tensor) -> torch.Tensor:
    rows = matrix - matrix.mean(dim=0, keepdim=True)
    return rows - rows.mean(dim=1, keepdim=True)
