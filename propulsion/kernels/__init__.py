"""Kernels for scaling a batch that mixes adapters, each in a folder with its torch reference.

What runs depends on the device: CUDA C++ or C++, else Triton, else torch; `propulsion doctor` says
which and why.
"""

from propulsion.kernels.gather_scale import gather_scale, gather_scale_
from propulsion.kernels.scale_act_mul import scale_act_mul
from propulsion.kernels.scale_add_norm import scale_add_norm, scale_add_norm_
from propulsion.kernels.scale_by_slot import scale_by_slot
from propulsion.kernels.scale_gelu import scale_gelu, scale_gelu_
from propulsion.kernels.scale_rope import scale_rope, scale_rope_

__all__ = [
    "gather_scale",
    "gather_scale_",
    "scale_act_mul",
    "scale_add_norm",
    "scale_add_norm_",
    "scale_by_slot",
    "scale_gelu",
    "scale_gelu_",
    "scale_rope",
    "scale_rope_",
]
