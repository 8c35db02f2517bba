"""AdamW over several adapters that do not notice each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from trainer.config.training import TrainingSection
from trainer.loss_scale import LossScale


class AdapterAdamW(torch.optim.AdamW):
    """AdamW with a parameter group per adapter: own rate, own clipping, own step count.

    Works on whole parameters as on the flat partitions that ZeRO puts in their place. An adapter
    whose gradient is not finite keeps its weights, and the others step as if it were not there.

    Args:
        adapters: trained parameters of each adapter, by its name.
        settings: how each is optimised.
        partitioned: a group's tensors are this rank's part only, so that norms are summed over the
            ranks.
        scale: what the loss was multiplied with.
    """

    def __init__(
        self,
        adapters: Mapping[str, Sequence[torch.nn.Parameter]],
        settings: Mapping[str, TrainingSection],
        *,
        partitioned: bool,
        scale: LossScale,
    ) -> None:
        groups = [
            {
                "params": list(parameters),
                "adapter": name,
                "lr": settings[name].lr,
                "weight_decay": settings[name].weight_decay,
                "clip": settings[name].clip,
                "active": True,
            }
            for name, parameters in adapters.items()
        ]
        super().__init__(groups)
        self.scale = scale
        self.not_finite: set[str] = set()
        """Adapters that did not step since `begin_step`, for a gradient that is not finite."""
        self._partitioned = partitioned

    def begin_step(self, rates: Mapping[str, float]) -> None:
        """Say which adapters take part in the next step, and at which learning rate."""
        self.not_finite.clear()
        for group in self.param_groups:
            group["active"] = group["adapter"] in rates
            if group["active"]:
                group["lr"] = rates[group["adapter"]]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One step of the groups there are: DeepSpeed calls it for one at a time."""
        held: list[tuple[torch.Tensor, torch.Tensor]] = []
        for group in self.param_groups:
            gradients = [p.grad for p in group["params"] if p.grad is not None]
            if not gradients:
                continue
            factor = self._factor(group, gradients) if group["active"] else None
            if factor is None:
                # A parameter without a gradient is left alone, its moments too.
                held += [(p, p.grad) for p in group["params"] if p.grad is not None]
            elif factor != 1.0:
                torch._foreach_mul_(gradients, factor)
        for parameter, _ in held:
            parameter.grad = None
        result = super().step(closure)
        # When it offloads, DeepSpeed has made them once and for all.
        for parameter, gradient in held:
            parameter.grad = gradient
        return result

    def _factor(self, group: dict[str, Any], gradients: list[torch.Tensor]) -> float | None:
        norm = self._norm(gradients) / self.scale.value
        if norm != norm or norm == float("inf"):
            self.not_finite.add(group["adapter"])
            return None
        clip = group["clip"]
        clipped = 1.0 if clip is None or norm <= clip else clip / norm
        return clipped / self.scale.value

    def _norm(self, gradients: list[torch.Tensor]) -> float:
        squares = torch.stack([g.float().square().sum() for g in gradients]).sum()
        if self._partitioned and torch.distributed.get_world_size() > 1:
            if torch.cuda.is_available():
                squares = squares.cuda()
            torch.distributed.all_reduce(squares)
        return squares.sqrt().item()
