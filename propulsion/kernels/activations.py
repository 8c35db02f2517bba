"""Activation functions that kernels take by number, as C++ names them too (`bindings.h`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch.nn import functional as F

ActivationName = Literal["silu", "gelu", "gelu_tanh"]
"""`gelu` is the exact one, by the error function; `gelu_tanh` its approximation by tanh."""

NUMBERS: dict[ActivationName, int] = {"silu": 0, "gelu": 1, "gelu_tanh": 2}

FUNCTIONS: tuple[Callable[[torch.Tensor], torch.Tensor], ...] = (
    F.silu,
    F.gelu,
    lambda x: F.gelu(x, approximate="tanh"),
)
"""By number."""
