"""What an adapter does to its base: tangent kernels before and after training, and its scales.

`propulsion ntk` and `propulsion inspect` are in `propulsion.analysis.cli`.
"""
