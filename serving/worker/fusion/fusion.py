"""What a fusion is."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol, Self

import torch
from torch import nn

from serving.worker.hooks import LayerScale
from serving.worker.targets import ScaledLayer


class Fusion(Protocol):
    """A module that can scale what it is given, which is the output of a linear layer.

    Attributes:
        in_place: whether it then leaves its result where the output was.
    """

    in_place: ClassVar[bool]

    @classmethod
    def of(
        cls, parent: nn.Module, reader: nn.Module, output: torch.Tensor, inputs: tuple[Any, ...]
    ) -> Self | None:
        """The fusion of a module that reads a linear layer's output, or None if there is none.

        Args:
            parent: the module that calls the reader.
            reader: the module.
            output: what the linear layer returned, (num_tokens, width).
            inputs: what the reader was called with; some of it lies in the memory of `output`.
        """

    def scale_by(self, layer: ScaledLayer, scale: LayerScale, *, captured: bool) -> None:
        """Have the module scale by `scale` from now on; `captured` is as in `hooks.attach`.

        Args:
            layer: whose output it is.
            scale: of the layer.
            captured: as in `hooks.attach`.
        """


def name_in(parent: nn.Module, child: nn.Module) -> str | None:
    """Under which name a module has another as its child."""
    return next((name for name, module in parent.named_children() if module is child), None)


def is_same(a: Any, b: torch.Tensor) -> bool:
    """Whether `a` is the tensor `b` or a view of all of it in the same order."""
    return (
        isinstance(a, torch.Tensor)
        and a.data_ptr() == b.data_ptr()
        and a.shape == b.shape
        and a.stride() == b.stride()
        and a.dtype == b.dtype
    )
