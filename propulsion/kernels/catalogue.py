"""Every kernel there is, in the order in which `propulsion doctor` lists them."""

from propulsion.kernels.gather_scale.operator import KERNEL as GATHER_SCALE
from propulsion.kernels.scale_act_mul.operator import KERNEL as SCALE_ACT_MUL
from propulsion.kernels.scale_add_norm.operator import KERNEL as SCALE_ADD_NORM
from propulsion.kernels.scale_by_slot.operator import KERNEL as SCALE_BY_SLOT
from propulsion.kernels.scale_gelu.operator import KERNEL as SCALE_GELU
from propulsion.kernels.scale_rope.operator import KERNEL as SCALE_ROPE

KERNELS = (GATHER_SCALE, SCALE_ROPE, SCALE_ACT_MUL, SCALE_GELU, SCALE_ADD_NORM, SCALE_BY_SLOT)
