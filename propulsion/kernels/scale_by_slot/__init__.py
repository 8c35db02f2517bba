"""V ⊙ s[slot] for training: each sample or token by its own adapter's scale, with gradients."""

from propulsion.kernels.scale_by_slot.autograd import scale_by_slot

__all__ = ["scale_by_slot"]
