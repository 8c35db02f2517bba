"""State dicts in files, each tensor read when it is asked for."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from propulsion.errors import AdapterCorruptError

Source = str | Path | Mapping[str, torch.Tensor]

_INDEX = ".index.json"
_MODEL_FILES = (
    "model.safetensors",
    f"model.safetensors{_INDEX}",
    "pytorch_model.bin",
    f"pytorch_model.bin{_INDEX}",
)
"""What a folder saved by transformers or its Trainer holds, the first found counts."""
_PICKLES = (".bin", ".pt", ".pth")
_WRAPPERS = ("module.", "_orig_mod.")
"""Put before every name by DistributedDataParallel and torch.compile."""


class LazyTensors(Mapping[str, torch.Tensor]):
    """Tensors by name, made by a call when they are asked for, and not kept."""

    def __init__(self, readers: Mapping[str, Callable[[], torch.Tensor]]) -> None:
        self._readers = readers

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._readers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)


def renamed(tensors: Mapping[str, torch.Tensor], names: Mapping[str, str]) -> LazyTensors:
    """`tensors` under other names; `names` maps the new to the old."""
    return LazyTensors({new: partial(tensors.__getitem__, old) for new, old in names.items()})


def open_state_dict(source: Source) -> Mapping[str, torch.Tensor]:
    """A state dict, without the prefix that parallel or compiled models put before every name.

    Args:
        source: a state dict; or a file `.safetensors`, `.bin`, `.pt` or `.pth`; or the index of a
            sharded one, `*.index.json`; or a folder as transformers saves it. Pickle files are
            read with `weights_only=True`, so that no code in them runs.

    Returns:
        Tensors by name, on the CPU if they come from files.

    Raises:
        AdapterCorruptError: a file is missing or damaged, or holds more than tensors.
    """
    tensors = source if isinstance(source, Mapping) else _open(Path(source))
    for wrapper in _WRAPPERS:
        if tensors and all(name.startswith(wrapper) for name in tensors):
            tensors = renamed(tensors, {name.removeprefix(wrapper): name for name in tensors})
    return tensors


def _open(path: Path) -> LazyTensors:
    if path.is_dir():
        found = [path / name for name in _MODEL_FILES if (path / name).is_file()]
        if not found:
            raise AdapterCorruptError(f"{path}: holds none of {', '.join(_MODEL_FILES)}")
        path = found[0]
    files = _shards(path) if path.name.endswith(_INDEX) else [path]
    readers: dict[str, Callable[[], torch.Tensor]] = {}
    for file in files:
        readers.update(_readers(file))
    return LazyTensors(readers)


def _shards(index: Path) -> list[Path]:
    try:
        names = {*json.loads(index.read_bytes())["weight_map"].values()}
        if not all(Path(name).name == name for name in names):
            raise ValueError("a file name in weight_map is a path")
    except OSError as error:
        raise AdapterCorruptError(f"{index}: cannot be read ({error.strerror})") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise AdapterCorruptError(f"{index}: not the index of a sharded model ({error})") from error
    return [index.with_name(name) for name in sorted(names)]


def _readers(path: Path) -> dict[str, Callable[[], torch.Tensor]]:
    if not path.is_file():
        raise AdapterCorruptError(f"{path}: no such file")
    if path.suffix == ".safetensors":
        return _safetensors_readers(path)
    if path.suffix in _PICKLES:
        return _pickle_readers(path)
    raise AdapterCorruptError(
        f"{path}: unknown kind of file; give a folder, .safetensors, {', '.join(_PICKLES)} or "
        f"*{_INDEX}"
    )


def _safetensors_readers(path: Path) -> dict[str, Callable[[], torch.Tensor]]:
    from safetensors import SafetensorError, safe_open

    try:
        file: Any = safe_open(path, framework="pt")
    except (OSError, SafetensorError) as error:
        raise AdapterCorruptError(f"{path}: not valid safetensors ({error})") from error
    return {name: partial(file.get_tensor, name) for name in file.keys()}  # noqa: SIM118


def _pickle_readers(path: Path) -> dict[str, Callable[[], torch.Tensor]]:
    try:
        # Files of PyTorch before 1.6 are no zip archives and cannot be mapped.
        state: Any = torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except pickle.UnpicklingError as error:
        raise AdapterCorruptError(
            f"{path}: holds more than tensors, or is damaged; nothing in it was run. Save "
            "model.state_dict() alone, best as safetensors"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, LookupError) as error:
        raise AdapterCorruptError(f"{path}: not a PyTorch file, or damaged ({error})") from error
    if not isinstance(state, Mapping) or not all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in state.items()
    ):
        raise AdapterCorruptError(
            f"{path}: does not map names to tensors; save model.state_dict() alone"
        )
    return {name: partial(state.__getitem__, name) for name in state}
