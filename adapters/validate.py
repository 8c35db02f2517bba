"""What an adapter folder must hold before it is published, and again before it is served."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.lora import check_lora
from adapters.safetensors_header import TensorInfo, read_header
from propulsion.adapter_folder import CONFIG_FILE, WEIGHTS_FILE, read_config_values
from propulsion.errors import AdapterCorruptError

_DELTA_SUFFIX = ".propulsion_delta"


@dataclass(frozen=True)
class AdapterFacts:
    """What the manifest repeats from the adapter's own files."""

    peft_type: str
    base_model_name_or_path: str | None
    num_parameters: int


def validate_folder(folder: Path) -> AdapterFacts:
    """Check an adapter folder: its configuration, and every tensor's name, shape and values.

    Raises:
        AdapterCorruptError: a file is missing, malformed or truncated, a tensor is not finite, or
            a Propulsion or LoRA tensor does not fit the configuration. The message names file and
            tensor.
        OSError: a file cannot be read.
    """
    config_path, weights_path = folder / CONFIG_FILE, folder / WEIGHTS_FILE
    config = read_config_values(folder)
    if not isinstance(config.get("base_model_name_or_path"), str | None):
        raise AdapterCorruptError(f"{config_path}: base_model_name_or_path is not a string.")
    if not weights_path.is_file():
        raise AdapterCorruptError(f"{weights_path}: missing.{_pickle_hint(folder)}")
    tensors = read_header(weights_path)
    if not tensors:
        raise AdapterCorruptError(f"{weights_path}: holds no tensor.")
    saved_modules = config.get("modules_to_save") or []
    if not isinstance(saved_modules, list) or not all(isinstance(m, str) for m in saved_modules):
        raise AdapterCorruptError(f"{config_path}: modules_to_save is not a list of module names.")
    if config["peft_type"] == "PROPULSION":
        _check_propulsion(weights_path, tensors, config, saved_modules)
    elif config["peft_type"] == "LORA":
        check_lora(weights_path, tensors, config, saved_modules)
    _check_finite(weights_path, tensors)
    return AdapterFacts(
        peft_type=config["peft_type"],
        base_model_name_or_path=config.get("base_model_name_or_path"),
        num_parameters=sum(tensor.num_values for tensor in tensors.values()),
    )


def _pickle_hint(folder: Path) -> str:
    if not any(folder.glob("*.bin")):
        return ""
    return (
        " Pickle files (*.bin) are never loaded, since they can run code: save the adapter again"
        " with safe_serialization=True."
    )


def _check_propulsion(
    path: Path,
    tensors: Mapping[str, TensorInfo],
    config: Mapping[str, Any],
    saved_modules: list[str],
) -> None:
    num_vectors = config.get("num_vectors")
    if type(num_vectors) is not int or num_vectors < 1:
        raise AdapterCorruptError(
            f"{path.with_name(CONFIG_FILE)}: num_vectors is {num_vectors!r}, expected 1 or more."
        )
    deltas = {name: tensor for name, tensor in tensors.items() if name.endswith(_DELTA_SUFFIX)}
    if not deltas:
        raise AdapterCorruptError(f"{path}: no tensor ends with {_DELTA_SUFFIX!r}.")
    for name, tensor in deltas.items():
        _check_delta(path, name, tensor, num_vectors)
    for name in tensors.keys() - deltas.keys():
        if not any(f".{module}." in f".{name}" for module in saved_modules):
            raise AdapterCorruptError(
                f"{path}: tensor {name!r} is neither a {_DELTA_SUFFIX!r} nor of a module listed in "
                "modules_to_save. If PEFT added embedding weights by itself, save the adapter "
                "with save_embedding_layers=False."
            )


def _check_delta(path: Path, name: str, tensor: TensorInfo, num_vectors: int) -> None:
    if tensor.dtype != "F32":
        raise AdapterCorruptError(f"{path}: tensor {name!r} is {tensor.dtype}, expected F32.")
    shape = tensor.shape
    if len(shape) != 2 or shape[0] != num_vectors or shape[1] < 1:
        raise AdapterCorruptError(
            f"{path}: tensor {name!r} has shape {list(shape)}, expected [{num_vectors}, d_out] "
            f"from num_vectors in {CONFIG_FILE}."
        )


def _check_finite(path: Path, tensors: Mapping[str, TensorInfo]) -> None:
    # numpy takes longer to import than the rest of the package, and only this needs it.
    from adapters.tensor_values import is_finite

    for name, tensor in tensors.items():
        if not is_finite(path, tensor):
            raise AdapterCorruptError(f"{path}: tensor {name!r} holds NaN or infinity.")
