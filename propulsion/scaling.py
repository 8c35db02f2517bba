"""What an adapter does to one layer, read from its configuration."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import NamedTuple, Protocol

from propulsion.architectures import ends_with_any
from propulsion.functional import Pooling


class Scaling(NamedTuple):
    """What an adapter does to one layer, its offsets aside."""

    degree: int
    num_vectors: int = 1
    pooling: Pooling = "mean"
    scales_input: bool = False
    """Whether the layer's input is scaled and not its output."""
    part: str | None = None
    """The part of a fused QKV projection whose outputs are scaled; all outputs if not given."""

    @property
    def is_pair(self) -> bool:
        """Whether outputs below zero have a scale of their own."""
        return self.num_vectors > 1 and self.pooling in ("max", "min")

    @property
    def has_no_gradient_at_zero(self) -> bool:
        """Whether the offsets have no gradient where the scale z^k is 0, whatever V is."""
        return self.num_vectors == 1 and self.degree > 1


class AdapterSettings(Protocol):
    """The fields of `PropulsionConfig` that decide how a layer is scaled."""

    degree: int
    degree_pattern: dict[str, int]
    num_vectors: int
    pooling: Pooling
    feedforward_modules: Collection[str] | str | None


def layer_scaling(settings: AdapterSettings, module: str) -> Scaling:
    """How `settings` scale the layer at path `module`, as a whole."""
    return Scaling(
        degree=layer_degree(settings.degree, settings.degree_pattern, module),
        num_vectors=settings.num_vectors,
        pooling=settings.pooling,
        scales_input=_matches(settings.feedforward_modules, module),
    )


def layer_degree(degree: int, degree_pattern: Mapping[str, int], module: str) -> int:
    """The degree of the layer at path `module`: that of the first pattern that matches its end."""
    for pattern, other in degree_pattern.items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return other
    return degree


def _matches(names: Collection[str] | str | None, module: str) -> bool:
    if isinstance(names, str):
        return re.fullmatch(names, module) is not None
    return ends_with_any(module, names or ())
