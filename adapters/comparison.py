"""How two versions differ: in configuration, in the scale of every layer, and in their metrics."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from propulsion.adapter_folder import read_config_values

if TYPE_CHECKING:
    import torch

    from adapters.store import AdapterStore
    from adapters.version import AdapterVersion

_SCALED = ("PROPULSION", "IA3")


@dataclass(frozen=True)
class ModuleDifference:
    """How far the effective scales of one layer lie apart.

    A layer that only one version adapts is compared with the base, where every scale is 1.

    Attributes:
        module: path in the base model.
        max, mean: of |s_a - s_b| over the layer's outputs; None if the sizes differ.
        only_in: "a" or "b" if only that version adapts the layer.
    """

    module: str
    max: float | None
    mean: float | None
    only_in: str | None


@dataclass(frozen=True)
class VersionDifference:
    """What `diff_versions` found.

    Attributes:
        a, b: references of the versions.
        config: keys of adapter_config.json with two values, None where a version lacks the key.
        metrics: the same for the metrics of the manifests, equal ones too.
        modules: by path; None if a version is of a method without scales, as LoRA.
    """

    a: str
    b: str
    config: dict[str, tuple[Any, Any]]
    metrics: dict[str, tuple[Any, Any]]
    modules: tuple[ModuleDifference, ...] | None


def diff_versions(
    store: AdapterStore, a: str | AdapterVersion, b: str | AdapterVersion
) -> VersionDifference:
    """Compare two verified versions of a store, of one name or of two.

    Raises:
        AdapterNotFoundError: the store has no such version.
        AdapterCorruptError: one is damaged.
    """
    with store.hold(a) as first, store.hold(b) as second:
        configs = [read_config_values(v.path) for v in (first, second)]
        metrics = _pairs(first.manifest.metrics, second.manifest.metrics)
        is_scaled = all(v.manifest.peft_type in _SCALED for v in (first, second))
        return VersionDifference(
            first.reference,
            second.reference,
            {key: pair for key, pair in _pairs(*configs).items() if pair[0] != pair[1]},
            metrics,
            _modules(first, second) if is_scaled else None,
        )


def _pairs(first: dict[str, Any], second: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    keys = sorted({*first, *second})
    return {key: (first.get(key), second.get(key)) for key in keys}


def _modules(first: AdapterVersion, second: AdapterVersion) -> tuple[ModuleDifference, ...]:
    a, b = _scales(first), _scales(second)
    return tuple(_difference(module, a.get(module), b.get(module)) for module in sorted({*a, *b}))


def _scales(version: AdapterVersion) -> dict[str, torch.Tensor]:
    from propulsion.effective import effective_scales

    with ExitStack() as stack:
        folder = version.path
        if version.manifest.peft_type == "IA3":
            from propulsion.interchange import import_ia3

            temporary = stack.enter_context(TemporaryDirectory(prefix="propulsion-"))
            folder = import_ia3(folder, Path(temporary, "adapter"))
        return effective_scales(folder)


def _difference(module: str, a: torch.Tensor | None, b: torch.Tensor | None) -> ModuleDifference:
    import torch

    only_in = "a" if b is None else "b" if a is None else None
    if a is not None and b is not None and a.shape[1] != b.shape[1]:
        return ModuleDifference(module, None, None, only_in)
    base = torch.ones(1, 1)
    # Of a pair of rows, each is compared with the one scale of the other version.
    apart = ((base if a is None else a) - (base if b is None else b)).abs()
    return ModuleDifference(module, float(apart.max()), float(apart.mean()), only_in)
