"""The section `adapter`: what is trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trainer.config.section import Section


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
    degree: int | None = Field(
        None,
        ge=1,
        description="Power k of z^k; if not given, the paper's for the data set, else 15.",
    )
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
