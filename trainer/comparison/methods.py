"""The methods that are compared, and the learning rate that each has by default."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from propulsion.errors import ConfigError
from trainer.config import JobConfig

NUM_VECTORS = 4
"""Vectors of each layer in `propulsion-multi`."""


@dataclass(frozen=True)
class Method:
    """A method of fine-tuning."""

    name: str
    title: str
    lr: float
    why: str
    """Where its default rate comes from."""
    adapter: dict[str, object] | None = None
    """What of the section `adapter` makes it, if it is a Propulsion."""


_DEGREES = "z^k moves k times as fast as z: 0.03 divided by the degree, 2e-3 at 15"
_LOW_RANK = "between the 1e-4 and 5e-4 of the methods' papers, for products of two new matrices"
_VIRTUAL = "new embeddings far from the loss: Lester et al. and Liu et al. take 1e-2 to 3e-1"

PROPULSION_RATE = 0.03
"""Divided by the degree, the default rate of Propulsion."""

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("propulsion-all", "Propulsion (all)", PROPULSION_RATE, _DEGREES, {"preset": "all"}),
        Method(
            "propulsion-attn", "Propulsion (attn)", PROPULSION_RATE, _DEGREES, {"preset": "attn"}
        ),
        Method(
            "propulsion-multi",
            f"Propulsion (all, {NUM_VECTORS} vectors)",
            PROPULSION_RATE,
            _DEGREES,
            {"preset": "all", "num_vectors": NUM_VECTORS},
        ),
        Method("full", "Full fine-tuning", 2e-5, "BERT's and RoBERTa's: 1e-5 to 5e-5"),
        Method("bitfit", "BitFit", 1e-3, "Ben Zaken et al.: 1e-4 to 1e-3, biases bear much"),
        Method("prompt-tuning", "Prompt tuning", 1e-2, _VIRTUAL),
        Method("prefix-tuning", "Prefix tuning", 1e-2, _VIRTUAL),
        Method("p-tuning", "P-tuning", 1e-3, "an MLP makes the embeddings, and takes less"),
        Method("ia3", "(IA)³", 5e-3, "Liu et al. take 3e-3: scales near 1 as here, of degree 1"),
        Method("lora", "LoRA", 2e-4, _LOW_RANK),
        Method("adalora", "AdaLoRA", 5e-4, _LOW_RANK),
        Method("lokr", "LoKr", 5e-4, _LOW_RANK),
        Method("loha", "LoHa", 5e-4, _LOW_RANK),
    )
}
"""By name. The rates are those for bases of 100 million parameters and more; smaller ones usually
bear five to ten times as much."""

NOT_RUN = ("Houlsby adapters", "MAM adapters", "ProPETL")
"""Methods of the paper's tables that have no implementation here."""


def chosen_methods(names: Sequence[str]) -> list[Method]:
    """The methods of those names.

    Raises:
        ConfigError: one is unknown, or named twice.
    """
    unknown = [name for name in names if name not in METHODS]
    if unknown:
        raise ConfigError(
            f"--methods: no such method {', '.join(map(repr, unknown))}; there are "
            f"{', '.join(METHODS)}"
        )
    if len({*names}) < len(names):
        raise ConfigError("--methods: names a method twice")
    return [METHODS[name] for name in names]


def default_rate(method: Method, job: JobConfig) -> float:
    """The rate of a method where none is asked for."""
    if method.adapter is None:
        return method.lr
    from trainer.adapted import degree_of

    return method.lr / degree_of(job.adapter, job)
