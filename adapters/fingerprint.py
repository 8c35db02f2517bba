"""A fingerprint of a base model, cheap at any size and the same however its weights are sharded."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any, BinaryIO

from adapters.safetensors_header import TensorInfo, read_header
from propulsion.errors import AdapterCorruptError, ConfigError

_SAMPLE_BYTES = 512
_INDEX_FILE = "model.safetensors.index.json"

# Keys that change neither a shape nor the function: where the model came from, who saved it, and
# how it is run. The weights' own dtypes are hashed with the weights.
_IGNORED_KEYS = frozenset(
    {
        "_attn_implementation_autoset",
        "_commit_hash",
        "_name_or_path",
        "dtype",
        "torch_dtype",
        "transformers_version",
        "use_cache",
    }
)


def base_fingerprint(model_path: str | Path) -> str:
    """Fingerprint the base model in a local folder: `sha256:` and 64 hex digits.

    Hashes the configuration without the keys that leave the function as it is, and for each tensor,
    by name: name, dtype, shape and up to three samples of 512 bytes (start, middle, end). Of a
    model of 30 GB it reads less than 1 MB beside the headers.

    Raises:
        ConfigError: the folder holds no config.json or no safetensors, or they are damaged.
    """
    folder = Path(model_path)
    try:
        digest = hashlib.sha256(_canonical(_read_config(folder / "config.json")))
        tensors: dict[str, bytes] = {}
        for path in _weight_files(folder):
            tensors |= _tensor_records(path)
    except AdapterCorruptError as error:
        raise ConfigError(f"The base model in {folder} is damaged: {error}") from error
    except OSError as error:
        raise ConfigError(f"Cannot read the base model in {folder}: {error}.") from error
    for name in sorted(tensors):
        digest.update(tensors[name])
    return f"sha256:{digest.hexdigest()}"


def _read_config(path: Path) -> Any:
    if not path.is_file():
        raise ConfigError(
            f"{path} is missing: give the local folder of a model (config.json, *.safetensors); "
            "download it first if this is a name on a hub."
        )
    try:
        return _without_ignored(json.loads(path.read_bytes()))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not JSON: {error}.") from error


def _without_ignored(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_ignored(v) for k, v in value.items() if k not in _IGNORED_KEYS}
    if isinstance(value, list):
        return [_without_ignored(item) for item in value]
    return value


def _weight_files(folder: Path) -> list[Path]:
    """The files transformers would load; some repositories hold the weights a second time."""
    whole, index = folder / "model.safetensors", folder / _INDEX_FILE
    if whole.is_file():
        return [whole]
    if index.is_file():
        return _indexed_files(index)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ConfigError(
            f"{folder} holds no *.safetensors: save the model with safe_serialization=True."
        )
    return files


def _indexed_files(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
        files = [index.with_name(name) for name in names]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{index} is not an index of safetensors files.") from error
    for file in files:
        if not file.is_file():
            raise ConfigError(f"{file} is missing, but {index.name} lists it: download it again.")
    return files


def _tensor_records(path: Path) -> dict[str, bytes]:
    tensors = read_header(path)
    with path.open("rb") as file:
        return {
            name: _canonical([name, tensor.dtype, tensor.shape])
            + hashlib.sha256(_samples(file, tensor)).digest()
            for name, tensor in tensors.items()
        }


def _samples(file: BinaryIO, tensor: TensorInfo) -> bytes:
    size = tensor.end - tensor.start
    if size <= 3 * _SAMPLE_BYTES:
        return os.pread(file.fileno(), size, tensor.start)
    last = size - _SAMPLE_BYTES
    offsets = (0, last // 2, last)
    return b"".join(
        os.pread(file.fileno(), _SAMPLE_BYTES, tensor.start + offset) for offset in offsets
    )


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
