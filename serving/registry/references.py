"""What a request's `model` may say: one adapter's reference, or a blend of several.

    name            name@v3            name@prod            a:0.7+b@prod:0.3

A blend multiplies the scales of its parts, each to the power of its weight (1 if not given).
Names cannot hold ':' or '+', so no text has two readings.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from adapters.reference import Reference, parse_reference, shown, version_number
from propulsion.errors import AdapterNotFoundError, ConfigError

MAX_PARTS = 8
_MAX_CHARACTERS = 4096
_WEIGHT = re.compile(r"-?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE]-?[0-9]+)?")


@dataclass(frozen=True)
class Part:
    """One adapter of a request, and the power its scale is raised to."""

    reference: Reference
    weight: float = 1.0


@dataclass(frozen=True)
class ModelReference:
    """A parsed `model`: one part of weight 1 for a plain adapter, else a blend."""

    parts: tuple[Part, ...]

    @property
    def names(self) -> frozenset[str]:
        """The adapter names it needs; all must be permitted."""
        return frozenset(part.reference.name for part in self.parts)


def parse_model(text: str) -> ModelReference:
    """Parse a request's `model`.

    Raises:
        AdapterNotFoundError: the text cannot name an adapter.
        ConfigError: it is a blend with a weight that is not a finite number other than 0, or with
            too many parts.
    """
    if len(text) > _MAX_CHARACTERS:
        raise AdapterNotFoundError(f"No adapter {shown(text)}: the name is too long.")
    return _parse(text)


@lru_cache(maxsize=16384)
def _parse(text: str) -> ModelReference:
    # Names first: that a part cannot exist outweighs what is wrong with its weight.
    pieces = [piece.partition(":") for piece in text.split("+")]
    try:
        references = [parse_reference(name) for name, _, _ in pieces]
    except ConfigError as error:
        raise AdapterNotFoundError(f"No adapter {shown(text)}: {error}") from error
    if len(pieces) > MAX_PARTS:
        raise ConfigError(f"a blend has at most {MAX_PARTS} parts, this one {len(pieces)}.")
    weights = [_weight(text) if colon else 1.0 for _, colon, text in pieces]
    return ModelReference(tuple(map(Part, references, weights)))


def canonical(parts: Iterable[tuple[str, str, float]]) -> str:
    """The one text for a resolved request.

    Args:
        parts: name, version and weight of each part, no version twice.

    Returns:
        `name@v3` for one part of weight 1; else every part as `name@v3:0.7`, by name and version
        number, weights as short as they read back exactly.
    """
    ordered = sorted(parts, key=lambda part: (part[0], version_number(part[1])))
    if len(ordered) == 1 and ordered[0][2] == 1.0:
        return f"{ordered[0][0]}@{ordered[0][1]}"
    return "+".join(f"{name}@{version}:{_shortest(w)}" for name, version, w in ordered)


def _weight(text: str) -> float:
    weight = float(text) if _WEIGHT.fullmatch(text) else math.nan
    if not math.isfinite(weight) or weight == 0:
        raise ConfigError(
            f"a weight in a blend must be a finite number other than 0, as in `a:0.7+b:0.3`; "
            f"{shown(text)} is not."
        )
    return weight


def _shortest(weight: float) -> str:
    # The '+' of 1e+22 would read as the next part.
    return repr(weight).removesuffix(".0").replace("e+", "e")
