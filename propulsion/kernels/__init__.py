"""Kernels for scaling a batch that mixes adapters, each beside its torch reference."""

from propulsion.kernels.gather_scale import gather_scale, gather_scale_

__all__ = ["gather_scale", "gather_scale_"]
