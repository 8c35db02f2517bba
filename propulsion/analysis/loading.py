"""Loads a base model and puts a fresh or a trained adapter on it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from propulsion.analysis.scalar_output import Task
from propulsion.errors import BaseMismatchError, ConfigError, PropulsionError

_ADAPTER = "default"
_OFFSETS = f".propulsion_delta.{_ADAPTER}"


@dataclass(frozen=True)
class AdaptedModel:
    """A frozen model with Propulsion layers, and the parameters to differentiate it for.

    Everything is fp32, in evaluation mode, on the CPU. Other modules that an adapter saved, such
    as a classification head, are in the model as trained; only δ differs between start and end.
    """

    model: nn.Module
    base: dict[str, torch.Tensor]
    """All parameters of the base in use, by name; tied ones once."""
    start: dict[str, torch.Tensor]
    """Offsets of a fresh adapter by parameter name, shape (num_vectors, d) each."""
    trained: dict[str, torch.Tensor] | None
    """Offsets as trained, in the same order; None for a fresh adapter."""

    @property
    def zeros(self) -> dict[str, torch.Tensor]:
        """Offsets at which the model is the base, whatever the adapter starts from."""
        return {name: torch.zeros_like(delta) for name, delta in self.start.items()}

    @property
    def modules(self) -> list[str]:
        """Paths of the adapted modules in the base, in the order of the offsets."""
        return [name.removesuffix(_OFFSETS) for name in self.start]


def load_tokenizer(base: str) -> Any:
    """The tokenizer of a folder or hub name; raises `ConfigError` if it cannot be loaded."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(base)
    except (OSError, ValueError) as error:
        raise _unloadable(f"the tokenizer of {base}", error) from error


def adapter_task(folder: Path) -> Task | None:
    """The task in an adapter's configuration, if it names one that has an f here.

    Raises `AdapterCorruptError` if the folder does not hold a Propulsion adapter.
    """
    from peft import PeftConfig

    from propulsion.effective import effective_scales

    effective_scales(folder)
    task_type = PeftConfig.from_pretrained(str(folder)).task_type
    return {"CAUSAL_LM": Task.CAUSAL_LM, "SEQ_CLS": Task.CLASSIFICATION}.get(task_type)


def load_base(base: str, task: Task | None, num_labels: int | None, seed: int) -> tuple[Any, Task]:
    """A transformers model in fp32 and evaluation mode, and its task.

    Args:
        base: a folder or a hub name.
        task: taken from the architecture named in the base's configuration if not given.
        num_labels: of a classification; the base's own if not given.
        seed: of the head that a classification gets where the base has none.

    Raises:
        ConfigError: it cannot be loaded, or its task is not known.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

    try:
        config = AutoConfig.from_pretrained(base)
        task = task or _task_of(base, config.architectures or [])
        if num_labels is not None:
            config.num_labels = num_labels
        classification = task is Task.CLASSIFICATION
        auto = AutoModelForSequenceClassification if classification else AutoModelForCausalLM
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = auto.from_pretrained(base, config=config, dtype=torch.float32)
    except (OSError, ValueError, RuntimeError) as error:
        raise _unloadable(base, error) from error
    model.config.use_cache = False
    return model.eval(), task


def with_fresh_adapter(
    base: Any, preset: str | None = None, degree: int | None = None
) -> AdaptedModel:
    """Puts a fresh adapter on `base`, which is changed; what is None is the method's default.

    Raises:
        ConfigError: `preset` or `degree` is wrong, or finds no layer in this base.
    """
    from propulsion.config import PropulsionConfig

    try:
        config = PropulsionConfig(preset=preset)
        if degree is not None:
            config = PropulsionConfig(preset=preset, degree=degree)
        return _adapted(base, config, None)
    except ValueError as error:
        raise ConfigError(f"preset {preset!r} does not fit this base: {error}") from error


def with_trained_adapter(base: Any, folder: Path) -> AdaptedModel:
    """Puts a saved adapter on `base`, which is changed.

    Raises:
        AdapterCorruptError: the folder does not hold a Propulsion adapter.
        BaseMismatchError: it is an adapter of another base.
    """
    from peft import PeftConfig
    from peft.utils import load_peft_weights

    from propulsion.effective import effective_scales

    present = dict(base.named_modules())
    absent = [module for module in effective_scales(folder) if module not in present]
    if absent:
        raise _mismatch(folder, f"scales {len(absent)} layers that it lacks, such as {absent[0]!r}")
    config = PeftConfig.from_pretrained(str(folder))
    config.inference_mode = False
    # PEFT would warn that the base is not at the path where the adapter was trained.
    config.base_model_name_or_path = None
    weights = load_peft_weights(str(folder), device="cpu")
    try:
        return _adapted(base, config, weights)
    except PropulsionError:
        raise
    except (KeyError, ValueError, RuntimeError) as error:
        raise _mismatch(folder, f"does not fit ({' '.join(str(error).split())})") from error


def _adapted(base: Any, config: Any, weights: dict[str, torch.Tensor] | None) -> AdaptedModel:
    from peft import get_peft_model, set_peft_model_state_dict

    model = get_peft_model(base, config, adapter_name=_ADAPTER)
    inner = model.get_base_model()
    start = _offsets(inner)
    trained = None
    if weights is not None:
        loaded: Any = set_peft_model_state_dict(model, weights, adapter_name=_ADAPTER)
        missing = [key for key in loaded.missing_keys if _OFFSETS in key]
        if missing:
            raise ValueError(f"no offsets are saved for {missing[0].removesuffix(_OFFSETS)}")
        trained = _offsets(inner)
    inner.eval().requires_grad_(False)
    return AdaptedModel(inner, _base_parameters(inner), start, trained)


def _offsets(model: nn.Module) -> dict[str, torch.Tensor]:
    return {
        name: parameter.detach().clone()
        for name, parameter in model.named_parameters()
        if name.endswith(_OFFSETS)
    }


def _base_parameters(model: nn.Module) -> dict[str, torch.Tensor]:
    # Of a module that the adapter replaces, PEFT keeps the original, which f does not use.
    return {
        name: parameter.detach()
        for name, parameter in model.named_parameters()
        if not name.endswith(_OFFSETS) and ".original_module." not in name
    }


def _task_of(base: str, architectures: list[str]) -> Task:
    for architecture in architectures:
        if architecture.endswith("ForSequenceClassification"):
            return Task.CLASSIFICATION
        if architecture.endswith(("ForCausalLM", "LMHeadModel")):
            return Task.CAUSAL_LM
    raise ConfigError(
        f"{base}: its configuration names {', '.join(architectures) or 'no architecture'}, which "
        f"does not tell the task: give --task {' or '.join(Task)}"
    )


def _unloadable(what: str, error: Exception) -> ConfigError:
    return ConfigError(
        f"{what}: cannot be loaded ({error}): give --base a folder that transformers saved, or a "
        "name on the hub"
    )


def _mismatch(folder: Path, what: str) -> BaseMismatchError:
    return BaseMismatchError(
        f"{folder}: this adapter is not for this base: it {what}; give the base it was trained on"
    )
