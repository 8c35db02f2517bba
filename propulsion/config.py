"""What an adapter is: which layers are scaled, to which degree, by how many vectors."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, get_args

from peft.config import PeftConfig

from propulsion.architectures import QKV_PARTS
from propulsion.errors import ConfigError
from propulsion.functional import Pooling
from propulsion.heads import PROBLEM_TYPES, label_names
from propulsion.initialization import INITS
from propulsion.presets import PRESETS
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
    degree_pattern: dict[str, int] = field(
        default_factory=dict,
        metadata={
            "help": (
                "Module name or regex → degree, for layers that want another one; matched as "
                "`rank_pattern` in LoRA. Example: `{'mlp.down_proj': 5}`."
            )
        },
    )
    num_vectors: int = field(
        default=1,
        metadata={"help": "Vectors z_1 … z_m per layer; more than 1 is multi-propulsion."},
    )
    pooling: Pooling = field(
        default="mean",
        metadata={
            "help": (
                "How m outputs V ⊙ z_i^k become one: `mean`, `max`, `min` or `l2` (root mean "
                "square of the scales). `max` and `min` cannot be merged into the weights."
            )
        },
    )
    preset: str | None = field(
        default=None,
        metadata={
            "help": (
                "Which layers: `attn` (Q, K, V), `mlp`, `all` linear layers of each block, "
                "`embedding` (of the tokens), or `query`, `key`, `value` alone. Ignored if "
                "target_modules is given. If neither is: `attn`, or `all-linear` in an "
                "architecture that is not known."
            )
        },
    )
    target_modules: list[str] | str | None = field(
        default=None,
        metadata={
            "help": (
                "Names of the layers to scale, a regex, or `all-linear`, as in PEFT. Linear, "
                "Conv1D, embedding and normalisation layers can be scaled."
            )
        },
    )
    exclude_modules: list[str] | str | None = field(
        default=None, metadata={"help": "Names or a regex of layers to leave alone."}
    )
    feedforward_modules: list[str] | str | None = field(
        default=None,
        metadata={
            "help": (
                "Names or a regex of those targets whose input is scaled instead of the output, "
                "as (IA)³ does in the feed-forward part."
            )
        },
    )
    qkv_part: str | None = field(
        default=None,
        metadata={
            "help": (
                "`query`, `key` or `value`: the part of a fused QKV projection that is scaled; "
                "all of it if not given. The presets of these names set it."
            )
        },
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
    id2label: dict[int, str] | None = field(
        default=None,
        metadata={
            "help": (
                "Names of the classes of the head, by index from 0, as in transformers. Taken "
                "from the model if the task type is SEQ_CLS or TOKEN_CLS."
            )
        },
    )
    problem_type: str | None = field(
        default=None,
        metadata={
            "help": (
                "What the head's outputs are, as in transformers: `regression`, "
                "`single_label_classification` or `multi_label_classification`. Taken from the "
                "model as `id2label` is."
            )
        },
    )
    init: str = field(
        default="ones",
        metadata={
            "help": (
                "First value of z: `ones` starts at the base model. `zeros`, `normal` (mean 0, "
                "deviation 1) and `uniform` (0 to 1) are for the paper's ablation."
            )
        },
    )
    init_seed: int = field(
        default=0,
        metadata={"help": "Seed of what is random at the start; each layer draws its own."},
    )

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[no-untyped-call]
        self.peft_type = PEFT_TYPE
        for name in ("target_modules", "exclude_modules", "feedforward_modules"):
            if isinstance(getattr(self, name), list):
                setattr(self, name, set(getattr(self, name)))
        _check_positive("degree", self.degree)
        _check_positive("num_vectors", self.num_vectors)
        _check_pattern(self.degree_pattern)
        _check_choice("pooling", self.pooling, get_args(Pooling))
        _check_choice("init", self.init, INITS)
        if self.preset is not None:
            _check_choice("preset", self.preset, PRESETS)
        if self.qkv_part is not None:
            _check_choice("qkv_part", self.qkv_part, QKV_PARTS)
        if self.id2label is not None:
            self.id2label = label_names(self.id2label)
        if self.problem_type is not None:
            _check_choice("problem_type", self.problem_type, PROBLEM_TYPES)
        if self.layers_pattern is not None and self.layers_to_transform is None:
            raise ConfigError("layers_pattern needs layers_to_transform: say which blocks to adapt")
        if self.layers_to_transform is not None and isinstance(self.target_modules, str):
            raise ConfigError(
                "layers_to_transform does not go with a regex in target_modules: "
                "write the block numbers into the regex, or list the modules"
            )


def _check_positive(name: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{name} must be a positive integer, got {value!r}")


def _check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"unknown {name} {value!r}; choose one of {', '.join(choices)}")


def _check_pattern(degree_pattern: Any) -> None:
    if not isinstance(degree_pattern, dict):
        raise ConfigError(
            f"degree_pattern must map module names or regexes to degrees, got {degree_pattern!r}"
        )
    for pattern, degree in degree_pattern.items():
        _check_positive(f"degree_pattern[{pattern!r}]", degree)
        try:
            re.compile(pattern)
        except re.error as error:
            raise ConfigError(f"degree_pattern: {pattern!r} is not a regex ({error})") from error


register_with_peft()
