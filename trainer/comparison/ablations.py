"""What the ablations vary (paper, section 4.5 and Appendix F)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

from propulsion.errors import ConfigError
from trainer.comparison.methods import NUM_VECTORS
from trainer.config import AdapterSection, JobConfig

ABLATIONS = ("degree", "position", "init", "layers", "vectors", "pooling")
_POSITIONS = ("query", "key", "value", "attn", "mlp", "embedding", "all")
_VECTORS = (1, 2, 4, 8)


@dataclass(frozen=True)
class Variant:
    """One setting of one ablation."""

    ablation: str
    value: int | str
    adapter: AdapterSection


def variants(
    job: JobConfig, num_layers: int, names: Sequence[str], degrees: Sequence[int]
) -> list[Variant]:
    """The settings of the ablations of those names, in their order; all else is as in the job.

    Args:
        job: of the run file.
        num_layers: blocks of the base.
        names: of `ABLATIONS`; all of them if empty.
        degrees: that the ablation `degree` tries.

    Raises:
        ConfigError: a name is unknown, or a degree is not positive.
    """
    from trainer.adapted import degree_of

    unknown = [name for name in names if name not in ABLATIONS]
    if unknown:
        raise ConfigError(
            f"--only: no such ablation {', '.join(map(repr, unknown))}; there are "
            f"{', '.join(ABLATIONS)}"
        )
    if any(degree < 1 for degree in degrees):
        raise ConfigError("--degrees: a degree is 1 or more")
    own = job.adapter.model_copy(update={"degree": degree_of(job.adapter, job)})
    found = []
    for name in names or ABLATIONS:
        for value, changes in _changes(name, own, num_layers, degrees).items():
            found.append(Variant(name, value, own.model_copy(update=changes)))
    return found


def _changes(
    name: str, own: AdapterSection, num_layers: int, degrees: Sequence[int]
) -> dict[Any, dict[str, Any]]:
    if name == "degree":
        # A pattern would keep some layers at another degree.
        return {degree: {"degree": degree, "degree_pattern": {}} for degree in degrees}
    if name == "position":
        return {preset: {"preset": preset, "target_modules": None} for preset in _POSITIONS}
    if name == "init":
        inits = get_args(AdapterSection.model_fields["init"].annotation)
        return {init: {"init": init} for init in inits}
    if name == "layers":
        counts = sorted({1, max(1, num_layers // 2), num_layers})
        return {count: {"layers_to_transform": list(range(count))} for count in counts}
    if name == "vectors":
        return {count: {"num_vectors": count} for count in _VECTORS}
    several = own.num_vectors if own.num_vectors > 1 else NUM_VECTORS
    poolings = get_args(AdapterSection.model_fields["pooling"].annotation)
    return {pooling: {"pooling": pooling, "num_vectors": several} for pooling in poolings}
