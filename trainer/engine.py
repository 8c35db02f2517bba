"""Builds the adapted model and hands it to DeepSpeed."""

from __future__ import annotations

import logging
import os
from typing import Any

import torch

from propulsion.errors import ConfigError
from trainer.config import RunConfig

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def load_base(base: str, dtype: str) -> tuple[Any, Any]:
    """Base model and tokenizer from a folder or the hub.

    Raises:
        ConfigError: there is no such model, or its tokenizer has no end-of-sequence token.
    """
    # It warns on import, on every rank, of a kernel that it would rather have.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(base)
        model = AutoModelForCausalLM.from_pretrained(base, dtype=DTYPES[dtype])
    except (OSError, ValueError) as error:
        raise ConfigError(f"base {base!r} cannot be loaded as a causal LM: {error}") from error
    if tokenizer.eos_token_id is None:
        raise ConfigError(f"base {base!r}: its tokenizer has no end-of-sequence token")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model, tokenizer


def add_adapter(model: Any, run: RunConfig) -> Any:
    """A fresh adapter of the run's kind on `model`, as a `peft.PeftModel`."""
    from peft import get_peft_model

    from propulsion import PropulsionConfig

    model.config.use_cache = False
    return get_peft_model(
        model,
        PropulsionConfig(
            **run.adapter.model_dump(), task_type="CAUSAL_LM", base_model_name_or_path=run.base
        ),
    )


def start_engine(model: Any, run: RunConfig, world_size: int) -> Any:
    """A DeepSpeed engine that trains the adapter alone; collective over all ranks."""
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    micro, accumulation = micro_batches(run, world_size)
    trainable = [p for p in model.parameters() if p.requires_grad]
    engine, *_ = deepspeed.initialize(
        model=model,
        model_parameters=trainable,
        config={
            "train_micro_batch_size_per_gpu": micro,
            "gradient_accumulation_steps": accumulation,
            "gradient_clipping": run.training.clip,
            "optimizer": {
                "type": "AdamW",
                # The few parameters make a fused optimiser pointless; torch's needs no compiler.
                "params": {
                    "torch_adam": True,
                    "lr": run.training.lr,
                    "weight_decay": run.training.weight_decay,
                },
            },
            # Neither fp16 nor bf16 here: the base is loaded in its own dtype and frozen, and the
            # offsets that are trained stay in fp32.
            "zero_optimization": {
                "stage": run.deepspeed.stage,
                # The default buckets are sized for the gradients of whole models.
                "reduce_bucket_size": 5_000_000,
                "allgather_bucket_size": 5_000_000,
            },
            "zero_allow_untested_optimizer": True,
            "steps_per_print": 10**9,
        },
    )
    return engine


def micro_batches(run: RunConfig, world_size: int) -> tuple[int, int]:
    """Records per forward pass and rank, and how many passes make a step.

    Raises:
        ConfigError: the batch cannot be divided so.
    """
    batch = run.training.batch_size
    micro = run.training.micro_batch_size or batch // world_size
    if micro == 0 or batch % (micro * world_size):
        raise ConfigError(
            f"training.batch_size {batch} is not a multiple of micro_batch_size {micro} x "
            f"{world_size} ranks: change one of them"
        )
    return micro, batch // (micro * world_size)
