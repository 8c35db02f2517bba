"""PEFT adapter folders: what is read from one, and how one is written so that it appears whole."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Collection, Mapping
from dataclasses import fields
from itertools import accumulate
from pathlib import Path
from typing import TypeVar

import torch
from peft.config import PeftConfig
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from propulsion.adapter_folder import CONFIG_FILE, WEIGHTS_FILE, read_config_values
from propulsion.effective import KEY_PREFIX
from propulsion.errors import AdapterCorruptError, ConfigError, PropulsionError

Config = TypeVar("Config", bound=PeftConfig)


def read_config(folder: Path, config_class: type[Config], peft_type: str) -> Config:
    """The configuration of an adapter folder.

    Raises:
        AdapterCorruptError: it is missing, malformed, or of another method than `peft_type`.
    """
    values, path = read_config_values(folder), folder / CONFIG_FILE
    if values["peft_type"] != peft_type:
        raise AdapterCorruptError(
            f"{path}: peft_type must be {peft_type!r}, found {values['peft_type']!r}"
        )
    try:
        config: Config = config_class.from_peft_type(**values)  # type: ignore[no-untyped-call]
    except (PropulsionError, TypeError, ValueError) as error:
        raise AdapterCorruptError(f"{path}: {error}") from error
    return config


def read_tensors(
    folder: Path, suffix: str, modules_to_save: Collection[str] | None
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The tensors of an adapter folder.

    Args:
        folder: where `adapter_model.safetensors` lies.
        suffix: how the names of the method's own tensors end, as ".ia3_l".
        modules_to_save: from the adapter's configuration.

    Returns:
        The method's tensors by the module they belong to, and those of `modules_to_save` by the
        name they have in the file.

    Raises:
        AdapterCorruptError: the file is missing, truncated, holds none of the method's tensors or
            others than these.
    """
    path = folder / WEIGHTS_FILE
    own: dict[str, torch.Tensor] = {}
    whole: dict[str, torch.Tensor] = {}
    for key, tensor in _load(path).items():
        name = key.removeprefix(KEY_PREFIX)
        if name != key and name.endswith(suffix):
            own[name.removesuffix(suffix)] = tensor
        elif name != key and _is_saved_whole(name, modules_to_save or ()):
            whole[key] = tensor
        else:
            raise AdapterCorruptError(
                f"{path}: tensor {key!r} is neither {KEY_PREFIX}<module>{suffix} nor of a module "
                "in modules_to_save. If PEFT added embedding weights by itself, save the adapter "
                "with save_embedding_layers=False, or list their module in modules_to_save if they "
                "were resized"
            )
    if not own:
        raise AdapterCorruptError(f"{path}: holds no tensor whose name ends in {suffix!r}")
    return own, whole


def check_destination(destination: str | Path) -> None:
    """Raise `ConfigError` unless `destination` is free: missing, or an empty folder."""
    path = Path(destination)
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise ConfigError(
            f"{path}: exists and is not an empty folder; nothing is overwritten, so choose another "
            "destination or remove it"
        )


def write_folder(
    destination: str | Path, config: PeftConfig, tensors: Mapping[str, torch.Tensor], source: str
) -> Path:
    """Write an adapter folder, which appears whole and synced to disk, or not at all.

    The same arguments give the same bytes.

    Args:
        destination: the new folder; its parents are made.
        config: written as PEFT writes it, to `adapter_config.json`.
        tensors: by their names in `adapter_model.safetensors`; at least one.
        source: what they were made from, for messages.

    Returns:
        `destination`.

    Raises:
        ConfigError: the destination is not free.
        AdapterCorruptError: a tensor is not finite.
        PropulsionError: the files cannot be written.
    """
    check_destination(destination)
    for key, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise AdapterCorruptError(
                f"{source}: gives NaN or infinity in {key!r}; such an adapter would break every "
                "output, so train or save it again"
            )
    target = Path(destination).resolve()
    staging = target.with_name(f".{target.name}-{secrets.token_hex(8)}")
    try:
        staging.mkdir(parents=True)
        _sort_sets(config)
        config.save_pretrained(str(staging))
        # Cloned, since safetensors refuses tensors that share memory.
        separate = {
            key: tensor.detach().clone(memory_format=torch.contiguous_format)
            for key, tensor in tensors.items()
        }
        save_file(separate, staging / WEIGHTS_FILE, metadata={"format": "pt"})
        for path in (*staging.iterdir(), staging):
            _sync(path)
        staging.rename(target)
        _sync(target.parent)
    except (OSError, SafetensorError) as error:
        raise PropulsionError(
            f"{destination}: cannot be written ({error}); choose another place or free this one"
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return Path(destination)


def _load(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        pickled = any(path.parent.glob("*.bin"))
        hint = "; *.bin files can run code and are not loaded, save it again with PEFT"
        raise AdapterCorruptError(f"{path}: no such file{hint if pickled else ''}")
    try:
        tensors: dict[str, torch.Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise AdapterCorruptError(f"{path}: not valid safetensors ({error})") from error
    return tensors


def _is_saved_whole(name: str, modules_to_save: Collection[str]) -> bool:
    # As PEFT finds these modules: by the end of their path, dotted or not.
    parents = accumulate(name.split(".")[:-1], lambda path, part: f"{path}.{part}")
    return any(parent.endswith(module) for parent in parents for module in modules_to_save)


def _sort_sets(config: PeftConfig) -> None:
    for field in fields(config):
        value = getattr(config, field.name)
        if isinstance(value, set):
            setattr(config, field.name, sorted(value))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
