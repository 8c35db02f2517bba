"""How an adapter's configuration names the layers it scales, and those it scales at the input."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from peft import IA3Config
from peft.tuners.tuners_utils import check_target_module_exists

from propulsion.config import PropulsionConfig
from propulsion.errors import AdapterCorruptError
from propulsion.scaling import layer_scaling

Config = TypeVar("Config", IA3Config, PropulsionConfig)


def first_fitting(
    folder: Path,
    candidates: Iterable[Config],
    modules: Collection[str],
    inputs: Collection[str],
    scales_input: Callable[[Config, str], bool],
) -> Config:
    """The first configuration that scales all `modules`, and of these only `inputs` at the input.

    Raises `AdapterCorruptError`, naming `folder`, if none does.
    """
    for config in candidates:
        if config.target_modules is not None and all(
            check_target_module_exists(config, name)
            and scales_input(config, name) == (name in inputs)
            for name in modules
        ):
            return config
    raise AdapterCorruptError(
        f"{folder}: a module is scaled and in modules_to_save at once, which PEFT does not load; "
        "train it one way or the other"
    )


def propulsion_targets(
    config: IA3Config, modules: Collection[str], inputs: Collection[str]
) -> Iterator[dict[str, Any]]:
    """Fields of a `PropulsionConfig` to try: those of `config`, then every module by its path."""
    yield _targets_of(config)
    yield from _named(modules, inputs)


def ia3_targets(
    config: PropulsionConfig, modules: Collection[str], inputs: Collection[str]
) -> Iterator[dict[str, Any]]:
    """Fields of an `IA3Config` to try: those of `config`, then every module by its path."""
    # For (IA)³ None is not none, but a default.
    feedforward = config.feedforward_modules or []
    targets = config.target_modules or []
    # (IA)³ cannot choose blocks, and wants each word of one list in the other.
    has_regex = isinstance(targets, str) or isinstance(feedforward, str)
    if config.layers_to_transform is None and (has_regex or {*feedforward} <= {*targets}):
        yield {**_targets_of(config), "feedforward_modules": feedforward}
    yield from _named(modules, inputs)


def propulsion_scales_input(config: PropulsionConfig, module: str) -> bool:
    """Whether a Propulsion adapter of this configuration scales the input of `module`."""
    return layer_scaling(config, module).scales_input


def ia3_scales_input(config: IA3Config, module: str) -> bool:
    """Whether an (IA)³ adapter of this configuration scales the input of `module`."""
    if isinstance(config.feedforward_modules, str):
        return re.fullmatch(config.feedforward_modules, module) is not None
    return any(module.endswith(name) for name in config.feedforward_modules or ())


def _targets_of(config: Any) -> dict[str, Any]:
    names = ("target_modules", "exclude_modules", "feedforward_modules")
    return {name: getattr(config, name) for name in names}


def _named(modules: Collection[str], inputs: Collection[str]) -> Iterator[dict[str, Any]]:
    yield {"target_modules": [*modules], "feedforward_modules": [*inputs]}
    # A list also matches the ends of longer paths.
    exact = "|".join(map(re.escape, sorted(inputs)))
    yield {"target_modules": [*modules], "feedforward_modules": exact}
