"""Hands an adapted model to DeepSpeed."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

import torch

from propulsion.errors import ConfigError
from trainer.config import DeepSpeedSection, TrainingSection
from trainer.loss_scale import LossScale
from trainer.optimizer import AdapterAdamW
from trainer.optimizer_state import create_states


def start_engine(
    model: Any,
    adapters: Mapping[str, Mapping[str, torch.nn.Parameter]],
    settings: Mapping[str, TrainingSection],
    deepspeed_section: DeepSpeedSection,
) -> tuple[Any, AdapterAdamW]:
    """A DeepSpeed engine that trains the adapters alone; collective over all ranks.

    Args:
        model: with the adapters on it.
        adapters: adapter → path → parameter of what is trained.
        settings: how each adapter is optimised.
        deepspeed_section: stage and offloading.

    Returns:
        The engine, and the optimiser that it steps.
    """
    prepare_accelerator()
    import deepspeed

    # It warns of every optimiser that is not its own.
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    optimizer = AdapterAdamW(
        {name: list(parameters.values()) for name, parameters in adapters.items()},
        settings,
        partitioned=deepspeed_section.stage > 0,
        scale=LossScale.for_dtype(deepspeed_section.dtype),
    )
    engine, *_ = deepspeed.initialize(
        model=model,
        optimizer=optimizer,
        config={
            # How a step is divided into passes changes from step to step, as adapters come and go:
            # the loop says which pass is the last.
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": 1,
            # Neither fp16 nor bf16 here: the base is loaded in its own dtype and frozen, and what
            # is trained stays in fp32. The optimiser clips, each adapter by itself.
            "gradient_clipping": 0.0,
            "zero_optimization": zero_section(deepspeed_section),
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
            "steps_per_print": 10**9,
        },
    )
    _leave_norms_to_the_optimizer(engine)
    create_states(engine, optimizer)
    return engine, optimizer


def stop_engine(engine: Any) -> None:
    """Take the engine's hooks off, and let its model and memory go once nobody else holds them."""
    from deepspeed.runtime.zero import parameter_offload

    engine.destroy()
    # The model is the outermost module on it, for ever.
    parameter_offload.FWD_MODULE_STACK.clear()


def prepare_accelerator() -> None:
    """Let DeepSpeed know, before it is imported, that there is no GPU."""
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")


def _leave_norms_to_the_optimizer(engine: Any) -> None:
    # DeepSpeed drops a step whose norm over all parameters is not finite: one adapter would hold up
    # all the others. The optimiser takes the norm of each, and nothing else needs one.
    def no_norm(*_: Any) -> torch.Tensor:
        return torch.zeros((), device=engine.device)

    if engine.zero_optimization_stage() == 3:
        engine.optimizer._get_norm_groups = lambda: [no_norm()]
    elif engine.zero_optimization_stage() > 0:
        engine.optimizer.scaled_global_norm = no_norm


def zero_section(settings: DeepSpeedSection) -> dict[str, Any]:
    """DeepSpeed's `zero_optimization` for a run.

    Raises:
        ConfigError: something is offloaded to NVMe, and the machine lacks what that needs.
    """
    section: dict[str, Any] = {
        "stage": settings.stage,
        # The default buckets are sized for the gradients of whole models.
        "reduce_bucket_size": 5_000_000,
        "allgather_bucket_size": 5_000_000,
    }
    for key in ("offload_optimizer", "offload_param"):
        device = getattr(settings, key)
        if device is None:
            continue
        section[key] = {"device": device, "pin_memory": torch.cuda.is_available()}
        if device == "nvme":
            _check_nvme()
            section[key]["nvme_path"] = str(settings.nvme_path)
    return section


def _check_nvme() -> None:
    prepare_accelerator()
    from deepspeed.ops.op_builder import AsyncIOBuilder

    if not AsyncIOBuilder().is_compatible(verbose=False):
        raise ConfigError(
            "offloading to nvme needs DeepSpeed's async_io, which needs libaio: install it "
            "(Debian: libaio-dev), or offload to cpu"
        )
