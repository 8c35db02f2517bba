"""Loads the base of a run: whole, quantised, or straight into ZeRO-3 partitions."""

from __future__ import annotations

import logging
from typing import Any

import torch

from propulsion.errors import ConfigError
from trainer.config import DeepSpeedSection
from trainer.engine import zero_section

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def load_tokenizer(base: str) -> Any:
    """The tokenizer of a base, from a folder or the hub, with a padding token.

    Raises:
        ConfigError: there is none, or it has neither a padding nor an end-of-sequence token.
    """
    _be_quiet()
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(base)
    except (OSError, ValueError) as error:
        raise ConfigError(f"base {base!r}: its tokenizer cannot be loaded: {error}") from error
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise ConfigError(f"base {base!r}: its tokenizer has no end-of-sequence token")
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_base(
    base: str, auto_model: str, deepspeed: DeepSpeedSection, options: dict[str, Any] | None = None
) -> Any:
    """A model to train adapters on; under ZeRO-3 collective over all ranks.

    Under ZeRO-3 each layer is divided among the ranks as soon as it is made, and weights are read
    tensor by tensor from the mapped files, so that no rank ever holds the whole base.

    Args:
        base: a folder or a hub name.
        auto_model: name of the class of transformers that loads it.
        deepspeed: dtype, quantisation and stage.
        options: of `from_pretrained`, such as `num_labels`.

    Raises:
        ConfigError: there is no such model, or it is not of that kind.
    """
    _be_quiet()
    import transformers

    keywords = {"dtype": DTYPES[deepspeed.dtype], **(options or {})}
    if deepspeed.quantization is not None:
        keywords["quantization_config"] = _quantization(deepspeed)
    # Alive while the model is loaded, it tells transformers to make layers partitioned.
    partitioned = _partitioned_loading(deepspeed) if deepspeed.stage == 3 else None
    try:
        model = getattr(transformers, auto_model).from_pretrained(base, **keywords)
    except (OSError, ValueError) as error:
        raise ConfigError(f"base {base!r} cannot be loaded by {auto_model}: {error}") from error
    finally:
        del partitioned
    if deepspeed.gradient_checkpointing:
        _checkpoint_activations(model, reentrant=deepspeed.stage == 3)
    return model


def _partitioned_loading(deepspeed: DeepSpeedSection) -> Any:
    from transformers.integrations import HfDeepSpeedConfig

    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,
        "zero_optimization": zero_section(deepspeed),
    }
    if deepspeed.dtype != "fp32":
        # Only for loading: it is what decides the dtype of the partitions.
        config[deepspeed.dtype] = {"enabled": True}
    return HfDeepSpeedConfig(config)


def _quantization(deepspeed: DeepSpeedSection) -> Any:
    from importlib.util import find_spec

    from transformers import BitsAndBytesConfig

    if find_spec("bitsandbytes") is None:
        raise ConfigError(
            f"deepspeed.quantization: {deepspeed.quantization} needs bitsandbytes: "
            "pip install bitsandbytes"
        )
    if deepspeed.quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=DTYPES[deepspeed.dtype],
    )


def _checkpoint_activations(model: Any, *, reentrant: bool) -> None:
    # Without re-entering, torch compares shapes, and those of ZeRO-3's partitions change.
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    if reentrant:
        model.enable_input_require_grads()


def _be_quiet() -> None:
    # It warns on import, on every rank, of a kernel that it would rather have.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
