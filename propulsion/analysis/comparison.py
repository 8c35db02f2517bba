"""The kernels of full fine-tuning and of Propulsion on one set of samples, and their numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from propulsion.analysis import distances, ntk
from propulsion.analysis.loading import AdaptedModel
from propulsion.analysis.scalar_output import Probe, Task, scalar_output


@dataclass(frozen=True)
class Distances:
    """How far the kernel of Propulsion is from that of full fine-tuning (Appendix B)."""

    relative_distance: float
    alignment: float
    centered_alignment: float
    off_diagonal_alignment: float


@dataclass(frozen=True)
class Drift:
    """How far training moved Propulsion's gradients, relative to their start (Appendix C)."""

    jacobian: float
    kernel: float
    outputs_after: torch.Tensor
    """f after training, shape (num_samples,), fp32."""
    kernel_after: torch.Tensor
    """Shape (num_samples, num_samples), fp64."""
    norms_after: torch.Tensor
    """As `Comparison.norms`."""
    norms_of_difference: torch.Tensor
    """As `Comparison.norms`, of J_after - J_before."""


@dataclass(frozen=True)
class Comparison:
    """Kernels have shape (num_samples, num_samples) and are fp64."""

    outputs: torch.Tensor
    """f of the base with a fresh adapter, shape (num_samples,), fp32."""
    full: torch.Tensor
    """Over all parameters of the base, without an adapter."""
    propulsion: torch.Tensor
    """Over the offsets of a fresh adapter."""
    modules: list[str]
    norms: torch.Tensor
    """|∇_δ f(x_i)| over the offsets of each module, shape (num_samples, num_modules), fp32."""
    distances: Distances
    drift: Drift | None

    def to_json(self) -> dict[str, Any]:
        """Every number, as nested lists."""
        drift = self.drift
        kernels = {"full": self.full, "propulsion": self.propulsion}
        norms = {"before": self.norms}
        outputs = {"before": self.outputs}
        if drift is not None:
            kernels["propulsion_after"] = drift.kernel_after
            norms |= {"after": drift.norms_after, "difference": drift.norms_of_difference}
            outputs["after"] = drift.outputs_after
        return {
            "full_and_propulsion": asdict(self.distances),
            "drift": drift and {"jacobian": drift.jacobian, "kernel": drift.kernel},
            "outputs": {name: tensor.tolist() for name, tensor in outputs.items()},
            "kernels": {name: tensor.tolist() for name, tensor in kernels.items()},
            "jacobian_norms": {
                "modules": self.modules,
                **{name: tensor.tolist() for name, tensor in norms.items()},
            },
        }


def compare(
    adapted: AdaptedModel,
    task: Task,
    probes: Sequence[Probe],
    max_bytes: int,
    on_gradient: Callable[[], None] = lambda: None,
) -> Comparison:
    """Kernels at the start, and the drift to the trained offsets if the adapter has some.

    Args:
        adapted: base and adapter.
        task: which f; see `scalar_output`.
        probes: the samples.
        max_bytes: the most that gradients may take at a time.
        on_gradient: called after each of the `num_gradients`.

    Raises:
        ConfigError: `max_bytes` is too little.
        PropulsionError: a kernel is zero or not finite, so that there is nothing to compare.
    """
    function = scalar_output(adapted.model, task)
    check_memory(adapted, len(probes), max_bytes)

    def of_base(parameters: ntk.Parameters, probe: Probe) -> torch.Tensor:
        return function({**adapted.zeros, **parameters}, probe)

    outputs, propulsion, norms, drift = _of_propulsion(adapted, function, probes, on_gradient)
    full = ntk.kernel(of_base, adapted.base, probes, max_bytes, on_gradient)
    return Comparison(
        outputs=outputs,
        full=full,
        propulsion=propulsion,
        modules=adapted.modules,
        norms=norms,
        distances=Distances(
            distances.relative_distance(full, propulsion),
            distances.alignment(full, propulsion),
            distances.centered_alignment(full, propulsion),
            distances.off_diagonal_alignment(full, propulsion),
        ),
        drift=drift,
    )


def num_gradients(adapted: AdaptedModel, num_samples: int, max_bytes: int) -> int:
    """Backward passes of `compare`. Raises `ConfigError` if `max_bytes` is too little."""
    check_memory(adapted, num_samples, max_bytes)
    blocks = sum(1 for _ in ntk.parameter_blocks(adapted.base, num_samples, max_bytes))
    return num_samples * (blocks + (1 if adapted.trained is None else 2))


def check_memory(adapted: AdaptedModel, num_samples: int, max_bytes: int) -> None:
    """Raise `ConfigError` if Propulsion's Jacobians, which are held whole, exceed `max_bytes`."""
    # Before, after, and their difference.
    copies = 1 if adapted.trained is None else 3
    num_values = sum(delta.numel() for delta in adapted.start.values())
    ntk.check_memory("Propulsion's offsets", num_values, num_samples, max_bytes, copies)


def _of_propulsion(
    adapted: AdaptedModel,
    function: ntk.ScalarFunction[Probe],
    probes: Sequence[Probe],
    on_gradient: Callable[[], None],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, Drift | None]:
    """Outputs, kernel and norms at the start, and the drift; the Jacobians are let go."""
    before = ntk.jacobian(function, adapted.start, probes, on_gradient)
    kernel, norms = ntk.gram(before.rows), _norms(adapted, before.rows)
    if adapted.trained is None:
        return before.outputs, kernel, norms, None
    after = ntk.jacobian(function, adapted.trained, probes, on_gradient)
    return before.outputs, kernel, norms, _drift(adapted, before, after, kernel)


def _drift(
    adapted: AdaptedModel, before: ntk.Jacobian, after: ntk.Jacobian, kernel_before: torch.Tensor
) -> Drift:
    kernel_after = ntk.gram(after.rows)
    return Drift(
        jacobian=distances.drift(before.rows, after.rows),
        kernel=distances.drift(kernel_before, kernel_after),
        outputs_after=after.outputs,
        kernel_after=kernel_after,
        norms_after=_norms(adapted, after.rows),
        norms_of_difference=_norms(adapted, after.rows - before.rows),
    )


def _norms(adapted: AdaptedModel, rows: torch.Tensor) -> torch.Tensor:
    sizes = [delta.numel() for delta in adapted.start.values()]
    parts = torch.split(rows, sizes, dim=1)
    return torch.stack([torch.linalg.vector_norm(part, dim=1) for part in parts], dim=1)
