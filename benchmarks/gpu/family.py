"""What makes a family of models: its block, and what a block may ask of the step it is part of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch

Pair = tuple[torch.Tensor, torch.Tensor]


class Passes(Protocol):
    """The elementwise passes of a step: our kernels, or torch's without adapters.

    All may work in place. Values are (tokens, width); `layer` and `name` say whose output it is.
    """

    def scale(self, layer: int, name: str, x: torch.Tensor) -> torch.Tensor:
        """Nothing but the adapters' scales: no pass at all in the base."""

    def rope(self, layer: int, qkv: torch.Tensor) -> torch.Tensor:
        """Rotary embedding of packed queries and keys."""

    def act_mul(self, layer: int, gate_up: torch.Tensor) -> torch.Tensor:
        """SiLU of the first half times the second."""

    def gelu(self, layer: int, up: torch.Tensor) -> torch.Tensor:
        """GELU, as tanh approximates it."""

    def first_norm(self, x: torch.Tensor) -> Pair:
        """The first norm's output, and the residual."""

    def add_norm(self, layer: int, name: str, x: torch.Tensor, residual: torch.Tensor) -> Pair:
        """Norm of `residual + x`, and that sum."""

    def add_both_norm(
        self, layer: int, attended: torch.Tensor, mlp: torch.Tensor, residual: torch.Tensor
    ) -> Pair:
        """Norm of `residual + attended + mlp`, outputs of "o" and "down", and that sum."""


class Step(Protocol):
    """One step of a decoder, as its blocks see it."""

    passes: Passes

    def project(self, layer: int, name: str, x: torch.Tensor) -> torch.Tensor:
        """A linear layer."""

    def attend(self, qkv: torch.Tensor) -> torch.Tensor:
        """Attention over packed queries, keys and values."""


@dataclass(frozen=True)
class Family:
    """How the models of a family differ from those of others, beside their sizes.

    Attributes:
        block: (step, layer, normed input, residual) to the next block's.
        norm: RMSNorm, or LayerNorm with a bias.
        epsilon: of the norm.
        is_gated: whether the MLP has a gate, packed with the up projection as "gate_up"; else "up".
        is_neox: which values of a head its rotary embedding pairs, if it has one.
        biased: projections with a bias.
        kernels: those that its blocks run, by the labels of `bandwidth`.
    """

    block: Callable[[Step, int, torch.Tensor, torch.Tensor], Pair]
    norm: Literal["rms", "layer"]
    epsilon: float
    is_gated: bool
    biased: tuple[str, ...]
    kernels: tuple[str, ...]
    is_neox: bool = True
