"""What an adapter is: which layers are scaled, and to which degree."""

from __future__ import annotations

from dataclasses import dataclass, field

from peft.config import PeftConfig

from propulsion.errors import ConfigError
from propulsion.registration import PEFT_TYPE, register_with_peft


@dataclass
class PropulsionConfig(PeftConfig):
    """Configuration of a Propulsion adapter: `V' = V ⊙ z^k` (arXiv 2409.10927, Eq. 1-3).

    Raises `ConfigError` for values that cannot make an adapter.
    """

    degree: int = field(
        default=15,
        metadata={"help": "Power k of z^k, a positive integer. The paper uses 15 to 55 by task."},
    )
    num_vectors: int = field(
        default=1,
        metadata={"help": "Vectors per layer (multi-propulsion); 1 in this version."},
    )
    pooling: str = field(
        default="mean",
        metadata={"help": "How several vectors become one output; only `mean` in this version."},
    )
    preset: str | None = field(
        default=None,
        metadata={
            "help": (
                "Which layers: `attn` (Q, K, V), `mlp`, or `all` linear layers of each block. "
                "Ignored if target_modules is given; `attn` if neither is."
            )
        },
    )
    target_modules: list[str] | str | None = field(
        default=None,
        metadata={"help": "Names of the layers to scale, a regex, or `all-linear`, as in PEFT."},
    )
    exclude_modules: list[str] | str | None = field(
        default=None, metadata={"help": "Names or a regex of layers to leave alone."}
    )
    layers_to_transform: list[int] | int | None = field(
        default=None, metadata={"help": "Indices of the blocks to adapt; all if not given."}
    )
    layers_pattern: list[str] | str | None = field(
        default=None, metadata={"help": "Name of the block list, if PEFT cannot guess it."}
    )
    modules_to_save: list[str] | None = field(
        default=None, metadata={"help": "Other modules to train and save whole, such as a head."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[no-untyped-call]
        self.peft_type = PEFT_TYPE
        if isinstance(self.target_modules, list):
            self.target_modules = set(self.target_modules)  # type: ignore[assignment]
        if isinstance(self.exclude_modules, list):
            self.exclude_modules = set(self.exclude_modules)  # type: ignore[assignment]
        if not isinstance(self.degree, int) or isinstance(self.degree, bool) or self.degree < 1:
            raise ConfigError(f"degree must be a positive integer, got {self.degree!r}")
        if self.num_vectors != 1:
            raise ConfigError(f"num_vectors must be 1 in this version, got {self.num_vectors!r}")
        if self.pooling != "mean":
            raise ConfigError(f"pooling must be 'mean' in this version, got {self.pooling!r}")
        if self.layers_pattern is not None and self.layers_to_transform is None:
            raise ConfigError("layers_pattern needs layers_to_transform: say which blocks to adapt")
        if self.layers_to_transform is not None and isinstance(self.target_modules, str):
            raise ConfigError(
                "layers_to_transform does not go with a regex in target_modules: "
                "write the block numbers into the regex, or list the modules"
            )


register_with_peft()
