"""Bytes of weights, gradients and optimiser states on one rank, by ZeRO stage and offloading."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trainer.config.deepspeed import Offload


@dataclass(frozen=True)
class Placement:
    """Where a run keeps its states."""

    stage: int
    """ZeRO stage: 1 divides optimiser states among the ranks, 2 gradients too, 3 weights too."""
    offload_optimizer: Offload | None = None
    """Where optimiser states and gradients are kept, if not on the device."""
    offload_param: Offload | None = None
    """Where stage 3 keeps its share of the weights, if not on the device."""

    @property
    def name(self) -> str:
        """As the table of a plan calls it."""
        moved = {"optimizer": self.offload_optimizer, "param": self.offload_param}
        return ", ".join([str(self.stage), *(f"{k} on {v}" for k, v in moved.items() if v)])


@dataclass(frozen=True)
class TrainedBytes:
    """Bytes per trained parameter."""

    weight: int
    """That the model computes with."""
    gradient: int
    """That the optimiser steps by."""
    staging: int
    """Copy of a gradient on its way to the optimiser: of all of them with an offloaded optimiser,
    else of the adapter that is stepped."""
    master: int
    """Copy of the weight that the optimiser steps; 0 where it steps the weight itself."""
    moments: int = 8
    """AdamW's two, fp32."""


def adapter_bytes(stage: int) -> TrainedBytes:
    """What the trainer keeps of each trained parameter, which is fp32 whatever the base is.

    From stage 1 on DeepSpeed has the optimiser step a flat copy.
    """
    return TrainedBytes(weight=4, gradient=4, staging=4, master=0 if stage == 0 else 4)


@dataclass(frozen=True)
class StateMemory:
    """Bytes per rank at the optimiser's step, when most is there. All but the last two are on the
    device."""

    weights: float
    gathered: float
    """Whole weights that stage 3 has in memory beside its share."""
    gradients: float
    optimizer: float
    host: float
    nvme: float

    @property
    def device(self) -> float:
        """All that is on the device."""
        return self.weights + self.gathered + self.gradients + self.optimizer


def state_memory(
    placement: Placement,
    world_size: int,
    *,
    frozen_bytes: float,
    trained: Sequence[int],
    per_trained: TrainedBytes,
    gathered_bytes: float,
) -> StateMemory:
    """Memory of one of `world_size` ranks.

    Args:
        frozen_bytes: of all weights that are not trained.
        trained: trained parameters of each adapter; they are stepped one adapter at a time.
        per_trained: what each parameter takes.
        gathered_bytes: most that stage 3 gathers at a time.
    """
    stage, total = placement.stage, sum(trained)
    weights = frozen_bytes + total * per_trained.weight
    gathered = 0.0
    if stage == 3:
        weights, gathered = weights / world_size, gathered_bytes
    offloads = placement.offload_optimizer is not None
    kept = total if stage < 2 and not offloads else total / world_size
    staged = _staged(stage, trained, offloads) / world_size
    gradients = kept * per_trained.gradient + staged * per_trained.staging
    optimizer = total * (per_trained.master + per_trained.moments)
    if stage > 0:
        optimizer /= world_size
    elsewhere: dict[str, float] = {"cpu": 0.0, "nvme": 0.0}
    if placement.offload_optimizer is not None:
        elsewhere[placement.offload_optimizer] += gradients + optimizer
        gradients = optimizer = 0.0
    if placement.offload_param is not None:
        elsewhere[placement.offload_param] += weights
        weights = 0.0
    return StateMemory(weights, gathered, gradients, optimizer, elsewhere["cpu"], elsewhere["nvme"])


def _staged(stage: int, trained: Sequence[int], offloads: bool) -> int:
    """Trained parameters whose gradient is there twice at the step, over all ranks."""
    if offloads:
        return sum(trained)
    if stage == 0 or (stage < 3 and len(trained) == 1):
        # At stages 1 and 2 gradients lie in one buffer, which the last adapter's step frees.
        return 0
    return max(trained, default=0)
