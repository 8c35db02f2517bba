"""Bytes of weights, gradients and optimiser states on one rank, by ZeRO stage and offloading."""

from __future__ import annotations

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
    """The copy that the way to the optimiser takes where gradients or states are elsewhere: at
    stage 3, and with an offloaded optimiser."""
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
    trained: int,
    per_trained: TrainedBytes,
    gathered_bytes: float,
) -> StateMemory:
    """Memory of one of `world_size` ranks.

    Args:
        frozen_bytes: of all weights that are not trained.
        trained: trained parameters.
        per_trained: what each of them takes.
        gathered_bytes: most that stage 3 gathers at a time.
    """
    stage, share = placement.stage, trained / world_size
    weights = frozen_bytes + trained * per_trained.weight
    gathered = 0.0
    if stage == 3:
        weights, gathered = weights / world_size, gathered_bytes
    staged = stage == 3 or placement.offload_optimizer is not None
    kept = trained if stage < 2 and placement.offload_optimizer is None else share
    gradients = kept * per_trained.gradient + share * (per_trained.staging if staged else 0)
    optimizer = (trained if stage == 0 else share) * (per_trained.master + per_trained.moments)
    elsewhere: dict[str, float] = {"cpu": 0.0, "nvme": 0.0}
    if placement.offload_optimizer is not None:
        elsewhere[placement.offload_optimizer] += gradients + optimizer
        gradients = optimizer = 0.0
    if placement.offload_param is not None:
        elsewhere[placement.offload_param] += weights
        weights = 0.0
    return StateMemory(weights, gathered, gradients, optimizer, elsewhere["cpu"], elsewhere["nvme"])
