"""What a LoRA adapter (arXiv 2106.09685) must hold: pairs A (r, d_in) and B (d_out, r)."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from adapters.safetensors_header import TensorInfo
from propulsion.adapter_folder import CONFIG_FILE
from propulsion.errors import AdapterCorruptError

_PREFIX = "base_model.model."
_PAIR = re.compile(r"(?P<module>.+)\.lora_(embedding_)?(?P<side>[AB])(\.weight)?")
# DoRA's magnitudes, the bias of B, and the layers' own biases where they were trained.
_BESIDE = re.compile(r".+\.(lora_magnitude_vector(\.weight)?|lora_B\.bias|(base_layer\.)?bias)")
_FLOATS = ("F32", "F16", "BF16", "F64")
_Pair: TypeAlias = dict[str, tuple[str, TensorInfo]]


def check_lora(
    path: Path,
    tensors: Mapping[str, TensorInfo],
    config: Mapping[str, Any],
    saved_modules: list[str],
) -> None:
    """Check names, pairs and ranks of a LoRA adapter's tensors; values are checked elsewhere.

    Args:
        path: of the weights, for messages.
        tensors: of the file.
        config: of the adapter.
        saved_modules: its `modules_to_save`.

    Raises:
        AdapterCorruptError: a tensor is of another method, lacks its pair, or has another rank than
            `r` and `rank_pattern` say. The message names it.
    """
    config_path = path.with_name(CONFIG_FILE)
    rank = config.get("r")
    if type(rank) is not int or rank < 1:
        raise AdapterCorruptError(f"{config_path}: r is {rank!r}, expected 1 or more.")
    pattern = config.get("rank_pattern") or {}
    if not isinstance(pattern, dict) or not all(type(r) is int for r in pattern.values()):
        raise AdapterCorruptError(f"{config_path}: rank_pattern does not map names to ranks.")
    pairs: dict[str, _Pair] = {}
    for name, tensor in tensors.items():
        match = _PAIR.fullmatch(name)
        if match and name.startswith(_PREFIX):
            pairs.setdefault(match["module"], {})[match["side"]] = (name, tensor)
        elif not _is_beside(name, config, saved_modules):
            raise AdapterCorruptError(
                f"{path}: tensor {name!r} is neither {_PREFIX}<module>.lora_A or lora_B nor of a "
                "module listed in modules_to_save. If PEFT added embedding weights by itself, save "
                "the adapter with save_embedding_layers=False."
            )
    if not pairs:
        raise AdapterCorruptError(f"{path}: holds no lora_A and lora_B.")
    # Of a stack of matrices, as of experts, the ranks lie side by side.
    is_stacked = bool(config.get("target_parameters"))
    for module, pair in pairs.items():
        expected = _rank_of(module.removeprefix(_PREFIX), rank, pattern, config_path)
        _check_pair(path, module, pair, expected, is_stacked)


def _is_beside(name: str, config: Mapping[str, Any], saved_modules: list[str]) -> bool:
    if any(f".{module}." in f".{name}" for module in saved_modules):
        return True
    if not name.startswith(_PREFIX) or not _BESIDE.fullmatch(name):
        return False
    is_plain_bias = name.endswith(".bias") and not name.endswith(".lora_B.bias")
    return not is_plain_bias or config.get("bias", "none") != "none"


def _rank_of(module: str, rank: int, pattern: Mapping[str, int], config_path: Path) -> int:
    """The rank of a module, found as PEFT finds it."""
    for key, value in pattern.items():
        try:
            if re.match(rf"(.*\.)?({key})$", module):
                return value
        except re.error as error:
            raise AdapterCorruptError(
                f"{config_path}: rank_pattern {key!r} is no regular expression: {error}."
            ) from error
    return rank


def _check_pair(path: Path, module: str, pair: _Pair, rank: int, is_stacked: bool) -> None:
    if missing := {"A", "B"} - pair.keys():
        raise AdapterCorruptError(f"{path}: module {module!r} has no lora_{missing.pop()}.")
    (name_a, a), (name_b, b) = pair["A"], pair["B"]
    for name, tensor in ((name_a, a), (name_b, b)):
        if tensor.dtype not in _FLOATS:
            raise AdapterCorruptError(
                f"{path}: tensor {name!r} is {tensor.dtype}, expected one of {', '.join(_FLOATS)}."
            )
        if len(tensor.shape) < 2 or 0 in tensor.shape:
            raise AdapterCorruptError(
                f"{path}: tensor {name!r} has shape {list(tensor.shape)}, expected a matrix; "
                "weights sharded in training must be gathered before they are saved."
            )
    found_a, found_b = a.shape[0], b.shape[1]
    fits = found_a % rank == 0 if is_stacked else found_a == rank
    if not fits or found_a != found_b:
        raise AdapterCorruptError(
            f"{path}: tensors {name_a!r} {list(a.shape)} and {name_b!r} {list(b.shape)} do not "
            f"have the rank {rank} of {CONFIG_FILE}."
        )
