"""The rotary embedding with the scale of the packed queries, keys and values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from propulsion.kernels import scale_rope_
from serving import vllm_compat_fusion
from serving.worker.fusion.fusion import name_in
from serving.worker.hooks import LayerScale
from serving.worker.targets import ScaledLayer


@dataclass(frozen=True)
class Rotary:
    """Where a model turns the queries and keys that a packed projection gives.

    Attributes:
        parent: the attention.
        name: of the rotary embedding there.
        num_heads: of queries, on this rank.
        num_kv_heads: of keys, on this rank.
    """

    parent: nn.Module
    name: str
    num_heads: int
    num_kv_heads: int
    in_place: ClassVar[bool] = True

    @classmethod
    def of(
        cls, parent: nn.Module, reader: nn.Module, output: torch.Tensor, inputs: tuple[Any, ...]
    ) -> Rotary | None:
        """See `Fusion.of`: queries and keys must be the first columns of the output."""
        name = name_in(parent, reader)
        if name is None or not vllm_compat_fusion.is_rotary(reader) or len(inputs) != 3:
            return None
        positions, query, key = inputs
        tensors = [positions, query, key]
        if not all(isinstance(t, torch.Tensor) for t in tensors) or positions.dim() != 1:
            return None
        size = reader.head_size
        width = query.shape[-1]
        if not (
            _is_view(query, output, 0)
            and _is_view(key, output, width)
            and width % size == key.shape[-1] % size == 0
            and query.dtype == reader.cos_sin_cache.dtype
        ):
            return None
        return cls(parent, name, width // size, key.shape[-1] // size)

    def scale_by(self, layer: ScaledLayer, scale: LayerScale, *, captured: bool) -> None:
        """See `Fusion.scale_by`."""
        # Layers share one rotary embedding: each gets its own.
        scaled = ScaledRotary(self, getattr(self.parent, self.name), scale, captured)
        layer.module.register_forward_hook(scaled.keep_output)
        setattr(self.parent, self.name, scaled)


class ScaledRotary(nn.Module):
    """Stands in for a model's rotary embedding and scales queries, keys and values too.

    Args:
        fusion: the heads.
        original: what it stands in for, and calls while the batch does not scale the layer.
        scale: of the projection.
        captured: as in `hooks.attach`.
    """

    def __init__(self, fusion: Rotary, original: Any, scale: LayerScale, captured: bool):
        super().__init__()
        self.original = original
        self.scale = scale
        self._heads = {"num_heads": fusion.num_heads, "num_kv_heads": fusion.num_kv_heads}
        self._captured = captured
        self._qkv: torch.Tensor | None = None

    def keep_output(self, module: Any, args: Any, output: Any) -> None:
        """Forward hook of the projection: the values are scaled too, and nobody passes them on."""
        self._qkv = output[0] if isinstance(output, tuple) else output

    def forward(
        self, positions: torch.Tensor, query: torch.Tensor, key: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        qkv, self._qkv = self._qkv, None
        if not (self._captured or self.scale.active):
            result: tuple[torch.Tensor, torch.Tensor | None] = self.original(positions, query, key)
            return result
        assert qkv is not None
        bank, slots, negative_slots = self.scale.operands(len(qkv))
        scale_rope_(
            qkv,
            bank,
            slots,
            positions,
            vllm_compat_fusion.cosines_and_sines(self.original, qkv),
            negative_slots,
            **self._heads,
            head_size=self.original.head_size,
            is_neox=self.original.is_neox_style,
        )
        return query, key


def _is_view(part: torch.Tensor, whole: torch.Tensor, column: int) -> bool:
    """Whether `part` is columns of `whole` from `column` on."""
    return (
        part.dim() == 2
        and len(part) == len(whole)
        and part.stride() == whole.stride()
        and part.dtype == whole.dtype
        and part.data_ptr() == whole.data_ptr() + column * whole.element_size()
    )
