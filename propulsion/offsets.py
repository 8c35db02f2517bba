"""The trained offsets of one layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from propulsion.functional import Pooling, effective_scale


class Offsets(nn.ParameterDict):
    """δ = z - 1 of each adapter, shape (num_vectors, d), fp32.

    Scales are computed in a forward of its own, since DeepSpeed ZeRO-3 gathers the parameters of a
    module when its forward begins, and a plain `ParameterDict` has none.
    """

    # The one of ParameterDict refuses to be called.
    __call__: Callable[..., torch.Tensor] = nn.Module.__call__

    def forward(
        self, adapters: Sequence[str], degree: int | torch.Tensor, pooling: Pooling
    ) -> torch.Tensor:
        """Scales of adapters with as many vectors each, shape (len(adapters), rows, d), fp32.

        `degree` and `pooling` are as `effective_scale` takes them.
        """
        deltas = [self[adapter] for adapter in adapters]
        delta = deltas[0][None] if len(deltas) == 1 else torch.stack(deltas)
        return effective_scale(delta, degree, pooling)
