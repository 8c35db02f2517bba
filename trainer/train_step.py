"""One optimiser step of all adapters: forward, backward, and the numbers it gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from trainer.adapted import AdaptedModel
from trainer.batch_plan import Row, plan_passes
from trainer.optimizer import AdapterAdamW
from trainer.packing import collate_packed
from trainer.tasks.task import EncodedRecord, Task


@dataclass(frozen=True)
class Passes:
    """How a step is divided.

    Args:
        rank: whose part.
        world_size: how many ranks there are.
        micro_batch_size: most rows of a forward pass.
        pack_lengths: most tokens of a packed row of each job; None to pack nothing.
    """

    rank: int
    world_size: int
    micro_batch_size: int | None
    pack_lengths: Mapping[int, int] | None


class TrainStep:
    """Steps all adapters of a run at once.

    Each adapter's loss is the mean over the loss terms of its own records, over all ranks and
    passes. So it is the same however the step is divided, and whoever else takes part.
    """

    def __init__(
        self,
        engine: Any,
        optimizer: AdapterAdamW,
        adapted: AdaptedModel,
        task: Task,
        passes: Passes,
    ) -> None:
        self._engine = engine
        self._optimizer = optimizer
        self._adapted = adapted
        self._task = task
        self._passes = passes
        self._dtype = next(p.dtype for p in engine.module.parameters() if p.is_floating_point())

    def __call__(
        self, rows: Mapping[int, Sequence[EncodedRecord]], rates: Mapping[int, float], extra: int
    ) -> tuple[dict[int, float], int]:
        """Train on a step's records.

        Args:
            rows: records of each job that takes part, over all ranks.
            rates: learning rate of each.
            extra: a number of rank 0 that all ranks need to know.

        Returns:
            Mean loss of each job, and rank 0's `extra`.
        """
        engine, optimizer, passes = self._engine, self._optimizer, self._passes
        active = list(rows)
        terms = {job: sum(row.num_terms for row in records) for job, records in rows.items()}
        optimizer.begin_step({self._adapted.names[job]: lr for job, lr in rates.items()})
        sums = torch.zeros(len(self._adapted.names) + 1, device=engine.device)
        planned = plan_passes(
            rows, passes.rank, passes.world_size, passes.micro_batch_size, passes.pack_lengths
        )
        engine.train()
        for index, batch in enumerate(planned):
            engine.set_gradient_accumulation_boundary(index == len(planned) - 1)
            jobs = [row.job for row in batch]
            with self._adapted.mixed(jobs, active):
                losses = self._losses(batch)
                # DeepSpeed averages over the ranks; this makes it a mean over the loss's terms.
                weights = [row.weight * passes.world_size / terms[row.job] for row in batch]
                weighted = losses * losses.new_tensor(weights)
                engine.backward(weighted.sum() * optimizer.scale.value)
            counted = losses.detach() * losses.new_tensor([row.weight for row in batch])
            sums.index_add_(0, torch.tensor(jobs, device=sums.device), counted)
        engine.step()
        if passes.rank == 0:
            sums[-1] = extra
        if passes.world_size > 1:
            torch.distributed.all_reduce(sums)
        values = sums.tolist()
        return {job: values[job] / terms[job] for job in active}, round(values[-1])

    def _losses(self, batch: Sequence[Row]) -> torch.Tensor:
        if self._passes.pack_lengths is None:
            tensors = self._task.collate([row.parts[0] for row in batch])
        else:
            tensors = collate_packed(batch, self._task.tokenizer.pad_token_id, self._dtype)
        moved = {name: tensor.to(self._engine.device) for name, tensor in tensors.items()}
        labels = moved.pop("labels")
        return self._task.losses(self._engine(**moved), labels)
