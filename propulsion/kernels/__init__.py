"""Kernels for scaling a batch that mixes adapters, each beside its torch reference."""

from propulsion.kernels.gather_scale import gather_scale, gather_scale_
from propulsion.kernels.scale_by_slot import scale_by_slot

__all__ = ["gather_scale", "gather_scale_", "scale_by_slot"]
