"""From a run to what it needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trainer.config import RunConfig
from trainer.planning.activations import Activations, trace_activations
from trainer.planning.meta_model import ModelCounts, build_on_meta
from trainer.planning.states import Placement, StateMemory, adapter_bytes, state_memory


@dataclass(frozen=True)
class MemoryRow:
    """Memory of one rank under one placement."""

    placement: Placement
    is_own: bool
    """Whether it is what the run file asks for."""
    states: StateMemory


@dataclass(frozen=True)
class Plan:
    """What a run needs. Memory is in bytes, per rank."""

    run: str
    base: str
    dtype: str
    world_size: int
    counts: ModelCounts
    rows_per_pass: int
    max_length: int
    gradient_checkpointing: bool
    activations: Activations | None
    """None if the base's forward pass cannot be followed without data."""
    memory: tuple[MemoryRow, ...]

    @property
    def trained(self) -> int:
        """Trained parameters of all adapters."""
        return sum(self.counts.trained.values())

    @property
    def checkpoint_bytes(self) -> int:
        """Of a checkpoint: an fp32 weight and two fp32 moments for each trained parameter."""
        return 12 * self.trained

    @property
    def activation_bytes(self) -> int | None:
        """What the run's forward pass keeps for backward."""
        if self.activations is None:
            return None
        return (
            self.activations.checkpointed if self.gradient_checkpointing else self.activations.kept
        )

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON types; all memory in bytes."""
        tree = asdict(self)
        for row, told in zip(self.memory, tree["memory"], strict=True):
            told["name"] = row.placement.name
            told["device"] = row.states.device + (self.activation_bytes or 0)
        return {**tree, "trained": self.trained, "checkpoint_bytes": self.checkpoint_bytes}


def make_plan(
    run: RunConfig, *, gpus_per_node: int = 8, nodes: int = 1, base: Path | None = None
) -> Plan:
    """Work out what a run needs; no weight is loaded.

    Args:
        run: the run.
        gpus_per_node: ranks of each node.
        nodes: how many there are.
        base: folder with the base's `config.json`, if it is not where the run says.

    Raises:
        ConfigError: the base's configuration cannot be read, or the run does not fit it.
    """
    world_size = gpus_per_node * nodes
    adapted, counts = build_on_meta(run, base or run.base)
    rows = run.batching.micro_batch_size or _rows_of_a_step(run, world_size)
    max_length = max(job.data.max_length for job in run.jobs)
    try:
        activations = trace_activations(
            adapted, _jobs_of_rows(rows, counts), max_length, _target_length(run)
        )
    except RuntimeError:
        activations = None
    return Plan(
        run=run.name,
        base=str(base or run.base),
        dtype=run.deepspeed.dtype,
        world_size=world_size,
        counts=counts,
        rows_per_pass=rows,
        max_length=max_length,
        gradient_checkpointing=run.deepspeed.gradient_checkpointing,
        activations=activations,
        memory=tuple(_memory(run, counts, world_size)),
    )


def _memory(run: RunConfig, counts: ModelCounts, world_size: int) -> list[MemoryRow]:
    own = Placement(
        run.deepspeed.stage, run.deepspeed.offload_optimizer, run.deepspeed.offload_param
    )
    placements = [Placement(stage) for stage in (0, 1, 2, 3)]
    placements += [Placement(3, "cpu"), Placement(3, "cpu", "cpu")]
    if own not in placements:
        placements.append(own)
    if run.deepspeed.quantization is not None:
        # A quantised base cannot be partitioned.
        placements = [placement for placement in placements if placement.stage < 3]
    size = counts.frozen_bytes(run.deepspeed.dtype, run.deepspeed.quantization)
    trained = list(counts.trained.values())
    per_weight = size / counts.base
    return [
        MemoryRow(
            placement,
            placement == own,
            state_memory(
                placement,
                world_size,
                frozen_bytes=size,
                trained=trained,
                per_trained=adapter_bytes(placement.stage),
                gathered_bytes=(counts.largest_layer + counts.persistent) * per_weight
                + sum(trained) * adapter_bytes(3).weight,
            ),
        )
        for placement in placements
    ]


def _rows_of_a_step(run: RunConfig, world_size: int) -> int:
    """All records of a step are in one pass if the run does not divide them."""
    return -(-sum(job.training.batch_size for job in run.jobs) // world_size)


def _jobs_of_rows(rows: int, counts: ModelCounts) -> list[int]:
    """The adapters in turn, those that scale most first."""
    sizes: Mapping[int, int] = dict(enumerate(counts.trained.values()))
    largest = sorted(sizes, key=lambda job: -sizes[job])
    return [largest[row % len(largest)] for row in range(rows)]


def _target_length(run: RunConfig) -> int | None:
    if getattr(run.task, "model", None) != "seq2seq":
        return None
    return getattr(run.task, "max_target_length", None)
