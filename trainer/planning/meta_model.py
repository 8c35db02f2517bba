"""The base of a run with its adapters, built from the base's configuration without its weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from propulsion.errors import ConfigError, PropulsionError
from trainer.adapted import AdaptedModel
from trainer.config import RunConfig
from trainer.data.reading import label_names
from trainer.loading import DTYPES

PERSISTENT_BELOW = 100_000
"""ZeRO-3 keeps smaller parameters whole (DeepSpeed's `stage3_param_persistence_threshold`)."""

QUANTIZED_BYTES = {"int8": 1.0, "nf4": 0.5 + 4 / 64}
"""Per weight of a linear layer; nf4 has an fp32 scale for every 64."""

_MODELS = {
    "answer": ("AutoModelForCausalLM", "CAUSAL_LM"),
    "causal_lm": ("AutoModelForCausalLM", "CAUSAL_LM"),
    "summarization": ("AutoModelForCausalLM", "CAUSAL_LM"),
    "summarization/seq2seq": ("AutoModelForSeq2SeqLM", "SEQ_2_SEQ_LM"),
    "classification": ("AutoModelForSequenceClassification", "SEQ_CLS"),
    "regression": ("AutoModelForSequenceClassification", "SEQ_CLS"),
    "question_answering": ("AutoModelForQuestionAnswering", "QUESTION_ANS"),
    "token_classification": ("AutoModelForTokenClassification", "TOKEN_CLS"),
}

_TAGS_IF_NOT_SAID = 9
"""As in CoNLL-2003, where the run file does not name the tags: a plan reads no data."""


@dataclass(frozen=True)
class ModelCounts:
    """Numbers of parameters."""

    base: int
    quantizable: int
    """Those of the base that are in linear layers, its output layer aside."""
    largest_layer: int
    """Most that a single module of the base holds itself; what ZeRO-3 gathers at a time."""
    persistent: int
    """Those of the base in tensors so small that ZeRO-3 keeps them gathered."""
    trained: dict[str, int]
    """By the name of the adapter, a head of its own included."""

    def frozen_bytes(self, dtype: str, quantization: str | None) -> float:
        """Bytes of the base's weights."""
        size = DTYPES[dtype].itemsize
        if quantization is None:
            return self.base * size
        small = self.quantizable * QUANTIZED_BYTES[quantization]
        return small + (self.base - self.quantizable) * size


def model_of_task(run: RunConfig) -> tuple[str, str]:
    """Name of the class of transformers that loads the base, and PEFT's task type."""
    seq2seq = getattr(run.task, "model", None) == "seq2seq"
    return _MODELS[run.task.type + ("/seq2seq" if seq2seq else "")]


def build_on_meta(run: RunConfig, base: str | Path) -> tuple[AdaptedModel, ModelCounts]:
    """The model that a run trains, on torch's meta device, and its counts.

    Args:
        run: says task, dtype and adapters.
        base: folder with a `config.json`, or a hub name.

    Raises:
        ConfigError: there is no such configuration, or task or adapters do not fit it.
    """
    auto_model, task_type = model_of_task(run)
    config = _read_config(run, str(base))
    with torch.device("meta"):
        model = _build(config, auto_model, run, str(base))
        count = _count_base(model)
        try:
            adapted = AdaptedModel(model, run.model_copy(update={"base": str(base)}), task_type)
        except PropulsionError:
            raise
        except ValueError as error:
            raise ConfigError(f"the adapters cannot be put on {base}: {error}") from error
    trained = {
        job.name: sum(p.numel() for p in parameters.values())
        for job, parameters in zip(run.jobs, adapted.parameters.values(), strict=True)
    }
    return adapted, ModelCounts(**count, trained=trained)


def _read_config(run: RunConfig, base: str) -> Any:
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(base, **_head_options(run))
    except (OSError, ValueError, KeyError) as error:
        why = str(error).partition("\n")[0]
        raise ConfigError(
            f"base {base!r}: its configuration cannot be read ({why}). A plan needs nothing else: "
            "give --base FOLDER, where FOLDER holds the base's config.json"
        ) from error
    if getattr(config, "pad_token_id", None) is None:
        # Any will do; without one a head on a decoder takes no batch.
        config.pad_token_id = 0
    return config


def _head_options(run: RunConfig) -> dict[str, Any]:
    if run.task.type == "regression":
        return {"num_labels": 1}
    if run.task.type not in ("classification", "token_classification"):
        return {}
    names = label_names(run.jobs[0].data, (), run.task.type)
    unknown = 2 if run.task.type == "classification" else _TAGS_IF_NOT_SAID
    return {"num_labels": len(names) or unknown}


def _build(config: Any, auto_model: str, run: RunConfig, base: str) -> Any:
    import transformers

    try:
        return getattr(transformers, auto_model).from_config(
            config, dtype=DTYPES[run.deepspeed.dtype]
        )
    except ValueError as error:
        raise ConfigError(
            f"base {base!r} is a {config.model_type}, which {auto_model} cannot make, and the "
            f"task {run.task.type!r} needs one: change `base` or `task`"
        ) from error


def _count_base(model: Any) -> dict[str, int]:
    output = model.get_output_embeddings()
    linear = (
        module.weight
        for module in model.modules()
        if isinstance(module, nn.Linear) and module is not output
    )
    own = [sum(p.numel() for p in m.parameters(recurse=False)) for m in model.modules()]
    sizes = [p.numel() for p in model.parameters()]
    return {
        "base": sum(sizes),
        "quantizable": sum(weight.numel() for weight in linear),
        "largest_layer": max(own),
        "persistent": sum(size for size in sizes if size < PERSISTENT_BELOW),
    }
