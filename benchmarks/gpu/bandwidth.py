"""Each kernel's bytes per second, and its share of a copy from the device to itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from benchmarks.gpu.shapes import Shape
from benchmarks.gpu.timing import NOT_MEASURED, captured, rounds_of, spread
from propulsion import kernels
from propulsion.kernels.scale_by_slot.tiles import tiles_by_slot

# What is read must come from memory, not from the second-level cache.
WORKING_SET = 2**30


@dataclass(frozen=True)
class Case:
    """A kernel on one set of buffers after another, and the bytes it has to move each time."""

    kernel: str
    calls: list[Callable[[], Any]]
    bytes_per_call: int

    def call_all(self) -> None:
        """On every set of buffers."""
        for call in self.calls:
            call()


def measure(
    shape: Shape, device: str, tokens: int, num_adapters: int, rounds: int
) -> list[dict[str, Any]]:
    """A row for a copy and one for each kernel of the model, bf16 activations and an fp32 bank.

    Bytes are those that must be moved: activations once in and once out, and a bank row for each
    adapter in the batch.
    """
    copies = 1 if device == "cpu" else max(2, WORKING_SET // (4 * tokens * shape.hidden * 2))
    cases = _cases(shape, device, tokens, num_adapters, copies)
    if device == "cpu":
        for case in cases:
            case.calls[0]()
        return [_row(shape, case, tokens, num_adapters) for case in cases]

    replays = {case.kernel: captured(case.call_all) for case in cases}
    times = rounds_of(replays, rounds, budget_seconds=2.5)
    rows = []
    for case in cases:
        rates = [case.bytes_per_call * len(case.calls) / s for s in times[case.kernel]]
        of_copy = [
            case.bytes_per_call / s * s_copy / cases[0].bytes_per_call
            for s, s_copy in zip(times[case.kernel], times["copy"], strict=True)
        ]
        rows.append(
            {
                **_row(shape, case, tokens, num_adapters),
                "bytes_per_second": spread(rates),
                "share_of_copy": spread(of_copy),
            }
        )
    return rows


def _row(shape: Shape, case: Case, tokens: int, num_adapters: int) -> dict[str, Any]:
    return {
        "model": shape.model,
        "kernel": case.kernel,
        "tokens": tokens,
        "adapters": min(tokens, num_adapters),
        "bytes": case.bytes_per_call,
        "bytes_per_second": NOT_MEASURED,
        "share_of_copy": NOT_MEASURED,
    }


def _cases(shape: Shape, device: str, tokens: int, num_adapters: int, copies: int) -> list[Case]:
    """A copy as wide as the widest activations, the model's serving kernels, and training's."""

    def random(*size: int) -> torch.Tensor:
        return torch.randn(size, device=device, dtype=torch.bfloat16)

    hidden, intermediate, heads = shape.hidden, shape.intermediate, shape.heads
    qkv_width = 3 * hidden
    up_width = (2 if shape.family.is_gated else 1) * intermediate
    x, residual = random(copies, tokens, hidden), random(copies, tokens, hidden)
    qkv, up = random(copies, tokens, qkv_width), random(copies, tokens, up_width)
    target = torch.empty(copies, tokens, up_width, device=device, dtype=torch.bfloat16)
    bank = torch.rand(num_adapters + 1, max(qkv_width, up_width), device=device) * 1e-4
    adapters = min(tokens, num_adapters)
    groups = torch.arange(tokens, device=device) * adapters // tokens
    slots = (groups + 1).int()
    weight, positions = random(hidden), torch.arange(tokens, device=device)
    norm = {"bias": random(hidden), "norm": "layer"} if shape.family.norm == "layer" else {}
    cos_sin = random(tokens, shape.rotary)
    scales = torch.ones(adapters, 1, hidden, device=device)
    tiles = tiles_by_slot(tokens, groups, adapters)

    def moved(values_per_token: int, bank_width: int) -> int:
        return 2 * tokens * values_per_token + 4 * adapters * bank_width

    def copy(i: int) -> Any:
        return target[i].copy_(up[i])

    def gather_scale(i: int) -> Any:
        return kernels.gather_scale_(x[i], bank[:, :hidden], slots)

    def scale_rope(i: int) -> Any:
        return kernels.scale_rope_(
            *(qkv[i], bank[:, :qkv_width], slots, positions, cos_sin),
            num_heads=heads,
            num_kv_heads=heads,
            head_size=shape.head,
            is_neox=shape.family.is_neox,
        )

    def scale_act_mul(i: int) -> Any:
        out = target[i, :, :intermediate]
        return kernels.scale_act_mul(up[i], bank[:, :up_width], slots, out=out)

    def scale_gelu(i: int) -> Any:
        return kernels.scale_gelu_(up[i], bank[:, :up_width], slots)

    def scale_add_norm(i: int) -> Any:
        return kernels.scale_add_norm_(x[i], residual[i], bank[:, :hidden], slots, weight, **norm)

    def gradients(i: int) -> Any:
        return torch.ops.propulsion.scale_by_slot_tiles(
            *(residual[i], x[i], scales, tiles.slot, tiles.start, tiles.end),
            *(tiles.groups, tiles.slot.shape[0], True, True),
        )

    of_serving = {
        "gather_scale": (gather_scale, moved(2 * hidden, hidden)),
        "scale_rope": (scale_rope, moved(2 * qkv_width, qkv_width)),
        "scale_act_mul": (scale_act_mul, moved(up_width + intermediate, up_width)),
        "scale_gelu": (scale_gelu, moved(2 * up_width, up_width)),
        "scale_add_norm": (scale_add_norm, moved(4 * hidden, hidden)),
    }
    of_training = moved(3 * hidden, hidden) + 4 * tiles.slot.shape[0] * hidden
    timed = {
        "copy": (copy, moved(2 * up_width, 0)),
        **{name: of_serving[name] for name in shape.family.kernels},
        "scale_by_slot, gradients": (gradients, of_training),
    }
    return [
        Case(name, [partial(call, i) for i in range(copies)], size)
        for name, (call, size) in timed.items()
    ]
