"""Which layers a preset means in a model of a known architecture."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from propulsion.architectures import ARCHITECTURES, QKV_PARTS, Architecture
from propulsion.errors import ConfigError

ALL_LINEAR = "all-linear"
PRESETS = ("attn", "mlp", "all", "embedding", *QKV_PARTS)


@dataclass(frozen=True)
class Targets:
    """Module names, as `PropulsionConfig` takes them."""

    target_modules: set[str] | str
    exclude_modules: set[str]
    """Layers that a suffix in `target_modules` matches too, but that are not meant."""
    qkv_part: str | None = None
    """The part of a fused QKV projection that is meant, where it is not the whole."""


def preset_targets(preset: str | None, model_type: str) -> Targets:
    """The layers that `preset` targets in a model of `model_type`.

    Args:
        preset: one of `PRESETS`; None is "attn", or all linear layers of an unknown architecture.
        model_type: as in the model's transformers configuration.

    Raises:
        ConfigError: the preset is unknown, or needs names that only a known architecture has.
    """
    if preset is not None and preset not in PRESETS:
        raise ConfigError(f"unknown preset {preset!r}; choose one of {', '.join(PRESETS)}")
    architecture = ARCHITECTURES.get(model_type)
    if architecture is None:
        if preset in (None, "all"):
            return Targets(ALL_LINEAR, set())
        raise ConfigError(
            f"preset {preset!r} is not known for model type {model_type!r} (known: "
            f"{', '.join(sorted(ARCHITECTURES))}); use preset 'all', which takes all linear "
            "layers, or give target_modules"
        )
    chosen = _suffixes(preset or "attn", architecture)
    part = preset if preset in QKV_PARTS and architecture.is_fused else None
    return Targets(set(chosen), _also_matched(chosen, architecture), part)


def _suffixes(preset: str, architecture: Architecture) -> tuple[str, ...]:
    return {
        "attn": architecture.qkv,
        "mlp": architecture.mlp,
        "all": architecture.linear,
        "embedding": architecture.embedding,
        "query": architecture.query,
        "key": architecture.key,
        "value": architecture.value,
    }[preset]


def _also_matched(chosen: Iterable[str], architecture: Architecture) -> set[str]:
    others = {*architecture.linear} - {*chosen}
    return {name for name in others if any(name.endswith(f".{suffix}") for suffix in chosen)}


def exclude_also(
    exclude_modules: set[str] | list[str] | str | None, more: set[str]
) -> set[str] | str | None:
    """`exclude_modules` as given by a user, and `more` besides."""
    if not more:
        return set(exclude_modules) if isinstance(exclude_modules, list) else exclude_modules
    if isinstance(exclude_modules, str):
        names = "|".join(re.escape(name) for name in sorted(more))
        return rf"(?:{exclude_modules})|(?:.*\.)?(?:{names})"
    return {*(exclude_modules or ()), *more}
