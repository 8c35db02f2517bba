"""The run file: one YAML says what is trained, on which data, how, and where it is published."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from propulsion.errors import ConfigError


class Section(BaseModel):
    """A part of the run file; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid")


class AdapterSection(Section):
    """The adapter, as in `PropulsionConfig`."""

    preset: Literal["attn", "mlp", "all", "embedding", "query", "key", "value"] | None = Field(
        None, description="Layers to scale; `attn` if neither this nor target_modules is given."
    )
    target_modules: list[str] | str | None = Field(
        None, description="Layer names, a regex or `all-linear`; overrides the preset."
    )
    exclude_modules: list[str] | str | None = Field(
        None, description="Names or a regex of layers to leave alone."
    )
    layers_to_transform: list[int] | None = Field(None, description="Blocks to adapt; all if none.")
    degree: int = Field(15, ge=1, description="Power k of z^k.")
    degree_pattern: dict[str, Annotated[int, Field(ge=1)]] = Field(
        {}, description="Layer name or regex → degree, for layers that want another one."
    )
    num_vectors: int = Field(1, ge=1, description="Vectors per layer (multi-propulsion).")
    pooling: Literal["mean", "max", "min", "l2"] = Field(
        "mean", description="How several vectors become one; max and min are not served yet."
    )
    init: Literal["ones", "zeros", "normal", "uniform"] = Field(
        "ones", description="First value of z; `ones` starts at the base model."
    )


class InstructionFormat(Section):
    """A JSON list of records with `instruction`, `input`, `output` and `answer`."""

    format: Literal["instruction"]


class Gsm8kFormat(Section):
    """JSON lines with `question` and `answer`; the final number follows `####`."""

    format: Literal["gsm8k"]


class TsvFormat(Section):
    """Tab-separated columns with a label to name; no quoting, as GLUE publishes them."""

    format: Literal["tsv"]
    header: bool = Field(True, description="Whether the first line names the columns.")
    text: str | int = Field(description="Column of the text: its name, or its index from 0.")
    label: str | int = Field(description="Column of the label: its name, or its index from 0.")
    labels: dict[str, str] = Field(
        min_length=2, description="What each label in the file is called in the answer."
    )

    @model_validator(mode="after")
    def _columns_can_be_found(self) -> TsvFormat:
        if not self.header and not (isinstance(self.text, int) and isinstance(self.label, int)):
            raise ValueError("without a header, `text` and `label` must be column numbers")
        return self


RecordFormat = Annotated[InstructionFormat | Gsm8kFormat | TsvFormat, Field(discriminator="format")]


class DataSection(Section):
    """Where the records are and what a prompt looks like."""

    train: Path = Field(description="Training file.")
    test: Path = Field(description="File that evaluation uses; never trained on.")
    records: RecordFormat = Field(description="How both files are written.")
    prompt: str = Field(
        "{text}\n",
        description="Prompt around a record's text; must hold {text} once. The target follows.",
    )
    max_length: int = Field(
        256, ge=8, description="Tokens of prompt and target; a longer prompt loses its start."
    )
    train_limit: int | None = Field(None, ge=1, description="Use the first N training records.")
    test_limit: int | None = Field(None, ge=1, description="Use the first N test records.")

    @model_validator(mode="after")
    def _prompt_holds_text(self) -> DataSection:
        if self.prompt.count("{text}") != 1:
            raise ValueError("`prompt` must hold {text} exactly once")
        return self


class TrainingSection(Section):
    """The optimisation."""

    steps: int = Field(ge=1, description="Optimiser steps.")
    batch_size: int = Field(32, ge=1, description="Records per step, over all ranks.")
    micro_batch_size: int | None = Field(
        None, ge=1, description="Records per forward pass and rank; the rest is accumulated."
    )
    lr: float = Field(1e-3, gt=0, description="Peak learning rate of δ (AdamW).")
    warmup_ratio: float = Field(0.1, ge=0, lt=1, description="Share of the steps that warm up.")
    schedule: Literal["cosine", "linear", "constant"] = Field(
        "cosine", description="How the rate falls after the warm-up."
    )
    weight_decay: float = Field(0.0, ge=0, description="AdamW's, pulling towards the base model.")
    clip: float = Field(1.0, gt=0, description="Largest norm of the gradient.")
    eval_every: int | None = Field(
        None, ge=1, description="Steps between evaluations; only before and after if not given."
    )
    checkpoint_every: int = Field(100, ge=1, description="Steps between checkpoints.")
    keep_checkpoints: int = Field(2, ge=1, description="How many checkpoints are kept.")


class DeepSpeedSection(Section):
    """How DeepSpeed runs it."""

    stage: Literal[0, 1, 2, 3] = Field(2, description="ZeRO stage; 3 partitions the base too.")
    dtype: Literal["fp32", "bf16"] = Field("fp32", description="Of the base and activations.")


class EvaluationSection(Section):
    """How an answer is read from generated text and compared."""

    answer: Literal["text", "choice", "number"] = Field(
        description=(
            "`text`: all of it; `choice`: the first word that some test answer consists of; "
            "`number`: the last number."
        )
    )
    max_new_tokens: int = Field(8, ge=1, description="Greedy tokens per answer.")
    batch_size: int = Field(64, ge=1, description="Prompts per generate call and rank.")


class PublishSection(Section):
    """Where the finished adapter goes."""

    store: Path = Field(description="Folder of the adapter store.")
    name: str | None = Field(None, description="Adapter name; the run's name if not given.")
    aliases: list[str] = Field(["latest"], description="Aliases that then point to it.")


class RunConfig(Section):
    """A whole training run. Relative paths are relative to the run file."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="Name of the run.")
    base: str = Field(description="Base model: a folder or a hub name.")
    output_dir: Path = Field(description="Where checkpoints, metrics and the adapter are written.")
    seed: int = Field(0, description="Seeds data order and initialisation.")
    adapter: AdapterSection = Field(default_factory=AdapterSection)
    data: DataSection
    training: TrainingSection
    deepspeed: DeepSpeedSection = Field(default_factory=DeepSpeedSection)
    evaluation: EvaluationSection
    publish: PublishSection | None = None
    metrics_port: int | None = Field(
        None, ge=0, le=65535, description="Loopback port of /metrics while training; 0 picks one."
    )


def load_run(path: str | Path, overrides: list[str] | None = None) -> RunConfig:
    """Read a run file.

    Args:
        path: the YAML file.
        overrides: `section.key=value` settings that replace the file's, values in YAML.

    Raises:
        ConfigError: the file is missing or not YAML, or a key is unknown, missing or wrong.
    """
    path = Path(path)
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such run file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: must hold a mapping of keys, found {type(tree).__name__}")
    for override in overrides or []:
        _apply_override(tree, override)
    try:
        config = RunConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(_describe(path, error)) from error
    return _resolve_paths(config, path.resolve().parent)


def _apply_override(tree: dict[str, Any], override: str) -> None:
    key, separator, value = override.partition("=")
    if not separator or not key:
        raise ConfigError(f"--set takes section.key=value, got {override!r}")
    *parents, last = key.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"--set {override}: {parent!r} is not a section")
    tree[last] = yaml.safe_load(value)


def _resolve_paths(config: RunConfig, folder: Path) -> RunConfig:
    config.output_dir = folder / config.output_dir
    config.data.train = folder / config.data.train
    config.data.test = folder / config.data.test
    if config.publish is not None:
        config.publish.store = folder / config.publish.store
    if (folder / config.base).exists() or config.base.startswith("."):
        config.base = str((folder / config.base).resolve())
    return config


def _describe(path: Path, error: ValidationError) -> str:
    lines = [f"{path}: {error.error_count()} problem(s)"]
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            close = difflib.get_close_matches(str(problem["loc"][-1]), _known_keys(), n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            lines.append(f"  {where}: unknown key{hint}")
        else:
            lines.append(f"  {where}: {problem['msg']}")
    return "\n".join(lines)


def _known_keys() -> list[str]:
    sections: list[type[BaseModel]] = [RunConfig, *Section.__subclasses__()]
    return sorted({key for section in sections for key in section.model_fields})
