"""Empirical neural tangent kernels: per-sample Jacobians and their Gram matrices.

With f(θ, x) one number per sample, the kernel is K_ij = <∇_θ f(θ, x_i), ∇_θ f(θ, x_j)> (paper,
section on the NTK and Appendix B). Every function here is pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

import torch

from propulsion.errors import ConfigError, PropulsionError

Sample = TypeVar("Sample")
Parameters = Mapping[str, torch.Tensor]
ScalarFunction = Callable[[Parameters, Sample], torch.Tensor]
"""f(parameters, sample) → shape (), differentiable in the parameters."""

_GRAM_VALUES = 2**24
"""Values that are held in fp64 at a time."""


class Jacobian(NamedTuple):
    """f and its gradients on every sample."""

    outputs: torch.Tensor
    """Shape (num_samples,), fp32."""
    rows: torch.Tensor
    """Shape (num_samples, num_parameters), fp32; columns in the order of the parameters given."""


def jacobian(
    function: ScalarFunction[Sample],
    parameters: Parameters,
    samples: Sequence[Sample],
    on_gradient: Callable[[], None] = lambda: None,
) -> Jacobian:
    """Gradients of f for all parameters, one sample after the other.

    So samples of any length need no padding, and on a CPU this is also faster than `vmap`.

    Args:
        function: f.
        parameters: by name; not changed.
        samples: what f takes beside the parameters.
        on_gradient: called after each sample.

    Raises:
        PropulsionError: f or a gradient is not finite.
    """
    width = sum(parameter.numel() for parameter in parameters.values())
    rows = torch.empty(len(samples), width)
    outputs = torch.empty(len(samples))
    for index, sample in enumerate(samples):
        gradients, output = _gradients(function, parameters, sample)
        outputs[index] = output.detach()
        torch.cat([gradients[name].detach().reshape(-1) for name in parameters], out=rows[index])
        if not (rows[index].isfinite().all() and outputs[index].isfinite()):
            raise PropulsionError(
                f"sample {index + 1} of {len(samples)} gives an output or a gradient that is not "
                "finite: check the weights of the base and of the adapter"
            )
        on_gradient()
    return Jacobian(outputs, rows)


def _gradients(
    function: ScalarFunction[Sample], parameters: Parameters, sample: Sample
) -> tuple[Parameters, torch.Tensor]:
    try:
        return torch.func.grad_and_value(function)(dict(parameters), sample)
    except RuntimeError as error:
        # Some models, such as BLOOM, have an autograd function that torch.func cannot transform.
        if "setup_context" not in str(error):
            raise
    leaves = {name: parameter.detach().requires_grad_() for name, parameter in parameters.items()}
    output = function(leaves, sample)
    gradients = torch.autograd.grad(output, list(leaves.values()), materialize_grads=True)
    return dict(zip(leaves, gradients, strict=True)), output


def gram(rows: torch.Tensor) -> torch.Tensor:
    """J Jᵀ of rows J, shape (num_samples, num_parameters), as (num_samples, num_samples), fp64."""
    total = rows.new_zeros(len(rows), len(rows), dtype=torch.float64)
    width = max(1, _GRAM_VALUES // len(rows))
    for start in range(0, rows.shape[1], width):
        wide = rows[:, start : start + width].double()
        total += wide @ wide.T
    return total


def kernel(
    function: ScalarFunction[Sample],
    parameters: Parameters,
    samples: Sequence[Sample],
    max_bytes: int,
    on_gradient: Callable[[], None] = lambda: None,
) -> torch.Tensor:
    """The tangent kernel of f, with only a block of the parameters' gradients in memory at a time.

    Each block takes another pass over the samples.

    Args:
        max_bytes: the most that the gradients of all samples may take.

    Returns:
        Shape (num_samples, num_samples), fp64, symmetric.

    Raises:
        ConfigError: the gradients of one parameter alone take more than `max_bytes`.
        PropulsionError: f or a gradient is not finite.
    """
    total = torch.zeros(len(samples), len(samples), dtype=torch.float64)
    for block in parameter_blocks(parameters, len(samples), max_bytes):

        def of_block(chosen: Parameters, sample: Sample) -> torch.Tensor:
            return function({**parameters, **chosen}, sample)

        total += gram(jacobian(of_block, block, samples, on_gradient).rows)
    return total


def parameter_blocks(
    parameters: Parameters, num_samples: int, max_bytes: int
) -> Iterator[dict[str, torch.Tensor]]:
    """Parameters in runs whose gradients, for all samples in fp32, take at most `max_bytes`.

    Raises:
        ConfigError: one parameter alone takes more.
    """
    block: dict[str, torch.Tensor] = {}
    filled = 0
    for name, parameter in parameters.items():
        size = check_memory(name, parameter.numel(), num_samples, max_bytes)
        if block and filled + size > max_bytes:
            yield block
            block, filled = {}, 0
        block[name] = parameter
        filled += size
    if block:
        yield block


def check_memory(
    what: str, num_values: int, num_samples: int, max_bytes: int, copies: int = 1
) -> int:
    """Bytes of a Jacobian of `num_values` gradients per sample in fp32, held `copies` times.

    Raises:
        ConfigError: they are more than `max_bytes`.
    """
    size = 4 * copies * num_values * num_samples
    if size > max_bytes:
        raise ConfigError(
            f"the gradients of {what} ({num_values:,} values) on {num_samples} samples take "
            f"{size / 2**30:.3g} GiB, and --max-memory allows {max_bytes / 2**30:.3g} GiB: take at "
            f"most {max_bytes // (4 * copies * num_values)} samples, or allow more memory"
        )
    return size
