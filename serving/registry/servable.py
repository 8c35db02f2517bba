"""What a request's `model` came to mean: exact versions, ready to be loaded."""

from collections.abc import Iterable
from dataclasses import dataclass

from adapters import AdapterVersion
from propulsion.errors import ConfigError
from serving.registry.references import canonical

_LORA = "LORA"


@dataclass(frozen=True)
class Servable:
    """One adapter version, or a blend of several, that the engine holds as one adapter.

    Attributes:
        reference: canonical text, which means the same scales for ever: `name@v3`, or a blend of
            such.
        parts: the versions, with the powers their scales are raised to.
    """

    reference: str
    parts: tuple[tuple[AdapterVersion, float], ...]

    @property
    def is_blend(self) -> bool:
        """Whether it is more, or less, than one adapter as it was trained."""
        return len(self.parts) > 1 or self.parts[0][1] != 1.0

    @property
    def is_lora(self) -> bool:
        """Whether it is a LoRA adapter, which vLLM itself applies.

        Raises:
            AdapterCorruptError: its manifest cannot be read.
        """
        return not self.is_blend and self.parts[0][0].manifest.peft_type == _LORA


def single(version: AdapterVersion) -> Servable:
    """One version as it is."""
    return Servable(version.reference, ((version, 1.0),))


def blended(parts: Iterable[tuple[AdapterVersion, float]]) -> Servable:
    """The product of the versions' scales, each to its weight; one version met twice is one part.

    Raises:
        ConfigError: the weights of a version cancel out, or a part is a LoRA adapter, which has
            no scale.
        AdapterCorruptError: a part's manifest cannot be read.
    """
    versions: dict[str, AdapterVersion] = {}
    weights: dict[str, float] = {}
    for version, weight in parts:
        versions.setdefault(version.reference, version)
        weights[version.reference] = weights.get(version.reference, 0.0) + weight
    for reference, weight in weights.items():
        if weight == 0:
            raise ConfigError(f"the weights of {reference} in the blend add up to 0: leave it out.")
    merged = tuple((versions[reference], weights[reference]) for reference in sorted(versions))
    text = canonical((version.name, version.version, weight) for version, weight in merged)
    servable = Servable(text, merged)
    if servable.is_blend:
        for version, _ in merged:
            if version.manifest.peft_type == _LORA:
                raise ConfigError(
                    f"{version.reference} is a LoRA adapter, which has no scale: blends take "
                    "Propulsion and (IA)³ adapters."
                )
    return servable
