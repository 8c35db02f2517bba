"""A base with the adapters of a run on it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from propulsion.batch_context import mixed_forward
from propulsion.mixed_batch import BASE, MixedBatch
from trainer.config import AdapterSection, JobConfig, RunConfig
from trainer.data.published import default_degree


class AdaptedModel:
    """A frozen base, and a Propulsion adapter for each job of a run.

    Adapters go by their place in the run: PEFT allows fewer characters in a name than a run does.

    Args:
        base: a transformers model.
        run: its jobs say which adapters there are.
        task_type: PEFT's name of the kind of task.
    """

    def __init__(self, base: Any, run: RunConfig, task_type: str) -> None:
        from peft import get_peft_model

        if hasattr(base.config, "use_cache"):
            base.config.use_cache = False
        self.names = [f"job{index}" for index in range(len(run.jobs))]
        configs = [adapter_config(job, run.base, task_type) for job in run.jobs]
        self.model: Any = get_peft_model(base, configs[0], adapter_name=self.names[0])
        for name, config in zip(self.names[1:], configs[1:], strict=True):
            self.model.add_adapter(name, config)
        for parameter in self.all_parameters.values():
            parameter.requires_grad_(True)
            if not hasattr(parameter, "ds_id"):
                # Heads come in the base's dtype, in which small steps would be lost.
                parameter.data = parameter.data.float()

    @cached_property
    def parameters(self) -> dict[str, dict[str, torch.nn.Parameter]]:
        """Adapter → path → parameter of all that is trained."""
        found: dict[str, dict[str, torch.nn.Parameter]] = {name: {} for name in self.names}
        for path, parameter in self.model.named_parameters():
            owner = self._owner(path)
            if owner is not None:
                found[owner][path] = parameter
        return found

    @property
    def all_parameters(self) -> dict[str, torch.nn.Parameter]:
        """Path → parameter of all that is trained."""
        return {path: p for one in self.parameters.values() for path, p in one.items()}

    def _owner(self, path: str) -> str | None:
        for holder in ("propulsion_delta.", "modules_to_save."):
            _, separator, rest = path.rpartition(holder)
            if separator:
                return rest.split(".")[0]
        return None

    def mixed(self, rows: Sequence[int], active: Sequence[int]) -> AbstractContextManager[None]:
        """While it lasts, each row of a batch goes through the adapter of its job.

        Args:
            rows: job of each row.
            active: jobs whose adapters get a gradient, if one of zero, whether or not a row is
                theirs.
        """
        names = [self.names[job] for job in rows]
        also = [self.names[job] for job in active]
        return mixed_forward(self._tuner(), MixedBatch(names, self._device(), also=also))

    def only(self, job: int | None) -> AbstractContextManager[None]:
        """While it lasts, all rows go through one job's adapter, or through none."""
        name = BASE if job is None else self.names[job]
        return mixed_forward(self._tuner(), MixedBatch([name], self._device()))

    def after_step(self, step: int) -> None:
        """Called after each optimiser step, counted from 1; for methods that want it."""

    def save(self, job: int, weights: dict[str, torch.Tensor], folder: Path) -> None:
        """Write one adapter as a PEFT folder, in place of what is there.

        Args:
            job: whose adapter.
            weights: path → whole tensor of all that is trained, as `full_weights` gives it.
            folder: appears whole or not at all.
        """
        folder.parent.mkdir(parents=True, exist_ok=True)
        name = self.names[job]
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".saving-") as temporary:
            self.model.save_pretrained(
                temporary,
                selected_adapters=[name],
                state_dict=weights,
                save_embedding_layers=False,
            )
            shutil.rmtree(folder, ignore_errors=True)
            Path(temporary, name).rename(folder)

    def _tuner(self) -> Any:
        return self.model.base_model.model

    def _device(self) -> torch.device:
        return next(self.model.parameters()).device


def adapter_config(job: JobConfig, base: str, task_type: str) -> Any:
    """The `PropulsionConfig` that a job asks for."""
    from propulsion import PropulsionConfig

    settings = job.adapter.model_dump()
    settings["degree"] = degree_of(job.adapter, job)
    return PropulsionConfig(**settings, task_type=task_type, base_model_name_or_path=base)


def degree_of(adapter: AdapterSection, job: JobConfig) -> int:
    """The degree that is set, else the paper's for the job's data set."""
    return default_degree(job.data.records) if adapter.degree is None else adapter.degree
