"""The section `training`: how one adapter is optimised."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from trainer.config.section import Section


class EarlyStop(Section):
    """Stop an adapter that no longer gets better on the test records."""

    patience: int = Field(3, ge=1, description="Evaluations without a better score.")
    min_delta: float = Field(0.0, ge=0, description="What counts as better, in the score's unit.")


class TrainingSection(Section):
    """The optimisation of one adapter."""

    steps: int = Field(ge=1, description="Optimiser steps.")
    batch_size: int = Field(
        32, ge=1, description="Records of this adapter per step, over all ranks."
    )
    lr: float = Field(1e-3, gt=0, description="Peak learning rate of δ (AdamW).")
    warmup_ratio: float = Field(0.1, ge=0, lt=1, description="Share of the steps that warm up.")
    schedule: Literal["cosine", "linear", "constant"] = Field(
        "cosine", description="How the rate falls after the warm-up."
    )
    weight_decay: float = Field(0.0, ge=0, description="AdamW's, pulling towards the base model.")
    clip: float | None = Field(
        1.0, gt=0, description="Largest norm of this adapter's gradient; null for no limit."
    )
    eval_every: int | None = Field(
        None, ge=1, description="Steps between evaluations; only before and after if not given."
    )
    early_stop: EarlyStop | None = Field(
        None, description="Stop by the score; needs eval_every. The best weights are kept."
    )
