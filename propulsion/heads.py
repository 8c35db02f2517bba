"""Heads of adapters: a classifier that was trained with the scales and is saved beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from propulsion.adapter_folder import WEIGHTS_FILE, read_config_values
from propulsion.errors import AdapterCorruptError, ConfigError

if TYPE_CHECKING:
    import torch

REGRESSION = "regression"
SINGLE_LABEL = "single_label_classification"
MULTI_LABEL = "multi_label_classification"
PROBLEM_TYPES = (REGRESSION, SINGLE_LABEL, MULTI_LABEL)
LABELLED_TASKS = ("SEQ_CLS", "TOKEN_CLS")

_PREFIX = "base_model.model."


@dataclass(frozen=True)
class SavedHead:
    """A linear head: logits = weight · x + bias."""

    module: str
    """Path in the base model."""
    weight: torch.Tensor
    """Shape (num_labels, hidden_size), fp32."""
    bias: torch.Tensor | None
    """Shape (num_labels,), fp32."""
    problem_type: str
    """One of PROBLEM_TYPES."""
    id2label: Mapping[int, str]
    """Names of the labels, `LABEL_n` where the adapter says none."""

    @property
    def num_labels(self) -> int:
        return int(self.weight.shape[0])


def label_names(names: Any) -> dict[int, str]:
    """`id2label` with indices that are numbers, which JSON makes text.

    Raises:
        ConfigError: it does not name the indices from 0 on.
    """
    try:
        labels = {int(index): str(name) for index, name in names.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise ConfigError(f"id2label must map indices to names, got {names!r}") from error
    if sorted(labels) != list(range(len(labels))):
        raise ConfigError(f"id2label must name every index from 0 on, got {names!r}")
    return dict(sorted(labels.items()))


def saved_head(folder: str | Path) -> SavedHead | None:
    """The head in an adapter's folder, of any method of PEFT; None if it has no module saved whole.

    What the adapter does not say of it is taken as transformers does: a single output is a number,
    several are the classes of a softmax.

    Raises:
        AdapterCorruptError: a file is missing or damaged, or the configuration does not fit the
            weights.
        ConfigError: what is saved whole is not one linear layer.
    """
    config = read_config_values(folder)
    weights_path = Path(folder) / WEIGHTS_FILE
    modules_to_save = config.get("modules_to_save")
    whole = _whole_tensors(weights_path, modules_to_save) if modules_to_save else {}
    if not whole:
        return None
    modules = {name.rpartition(".")[0] for name in whole}
    module = modules.pop()
    weight, bias = whole.pop(f"{module}.weight", None), whole.pop(f"{module}.bias", None)
    if modules or whole or weight is None or weight.ndim != 2:
        raise ConfigError(
            f"{weights_path}: beside the adapter it holds {sorted({module, *modules, *whole})} "
            "whole, which is not a head of one linear layer; no other can be used apart from its "
            "base"
        )
    num_labels = len(weight)
    if bias is not None and bias.shape != (num_labels,):
        raise AdapterCorruptError(
            f"{weights_path}: the bias of {module!r} has shape {tuple(bias.shape)}, its weight "
            f"{tuple(weight.shape)}"
        )
    try:
        labels = label_names(config.get("id2label") or _numbered(num_labels))
    except ConfigError as error:
        raise AdapterCorruptError(f"{folder}: adapter_config.json: {error}") from error
    if len(labels) != num_labels:
        raise AdapterCorruptError(
            f"{folder}: id2label in adapter_config.json names {len(labels)} labels, but the head "
            f"{module!r} has {num_labels}"
        )
    problem = config.get("problem_type") or (REGRESSION if num_labels == 1 else SINGLE_LABEL)
    if problem not in PROBLEM_TYPES:
        raise AdapterCorruptError(
            f"{folder}: problem_type in adapter_config.json is {problem!r}, expected one of "
            f"{', '.join(PROBLEM_TYPES)}"
        )
    return SavedHead(module, weight, bias, problem, labels)


def saved_labels(folder: str | Path) -> Mapping[int, str] | None:
    """Names of the labels of the head in an adapter's folder; None if there is no such head.

    Raises:
        AdapterCorruptError: as `saved_head`.
    """
    try:
        head = saved_head(folder)
    except ConfigError:
        return None
    return None if head is None else head.id2label


def _numbered(num_labels: int) -> dict[int, str]:
    return {index: f"LABEL_{index}" for index in range(num_labels)}


def _whole_tensors(path: Path, modules: list[str]) -> dict[str, torch.Tensor]:
    """The tensors of `modules`, by their path in the base model."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {
                name.removeprefix(_PREFIX): file.get_tensor(name).float()
                for name in file.keys()  # noqa: SIM118 (it is no dict)
                if any(f".{module}." in f".{name}" for module in modules)
            }
    except (OSError, SafetensorError) as error:
        raise AdapterCorruptError(f"{path}: cannot be read: {error}") from error
