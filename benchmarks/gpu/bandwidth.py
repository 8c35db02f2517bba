"""Each kernel's bytes per second, and its share of a copy from the device to itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

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
    device: str,
    tokens: int,
    num_adapters: int,
    hidden: int,
    intermediate: int,
    rounds: int,
) -> list[dict[str, Any]]:
    """A row for a copy and one for each kernel, bf16 activations and an fp32 bank.

    Bytes are those that must be moved: activations once in and once out, and a bank row for each
    adapter in the batch.
    """
    copies = 1 if device == "cpu" else max(2, WORKING_SET // (4 * tokens * hidden * 2))
    cases = _cases(device, tokens, num_adapters, hidden, intermediate, copies)
    if device == "cpu":
        for case in cases:
            case.calls[0]()
        return [_row(case, tokens, num_adapters) for case in cases]

    replays = {case.kernel: captured(case.call_all) for case in cases}
    times = rounds_of(replays, rounds, budget_seconds=4.0)
    rows = []
    for case in cases:
        rates = [case.bytes_per_call * len(case.calls) / s for s in times[case.kernel]]
        of_copy = [
            case.bytes_per_call / s * s_copy / cases[0].bytes_per_call
            for s, s_copy in zip(times[case.kernel], times["copy"], strict=True)
        ]
        rows.append(
            {
                **_row(case, tokens, num_adapters),
                "bytes_per_second": spread(rates),
                "share_of_copy": spread(of_copy),
            }
        )
    return rows


def _row(case: Case, tokens: int, num_adapters: int) -> dict[str, Any]:
    return {
        "kernel": case.kernel,
        "tokens": tokens,
        "adapters": min(tokens, num_adapters),
        "bytes": case.bytes_per_call,
        "bytes_per_second": NOT_MEASURED,
        "share_of_copy": NOT_MEASURED,
    }


def _cases(
    device: str, tokens: int, num_adapters: int, hidden: int, intermediate: int, copies: int
) -> list[Case]:
    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device=device, dtype=torch.bfloat16)

    head = min(128, hidden // 2)
    qkv_width, up_width = 3 * hidden, 2 * intermediate
    x, residual = random(copies, tokens, hidden), random(copies, tokens, hidden)
    qkv, up = random(copies, tokens, qkv_width), random(copies, tokens, up_width)
    target = torch.empty(copies, tokens, up_width, device=device, dtype=torch.bfloat16)
    bank = torch.rand(num_adapters + 1, max(qkv_width, up_width), device=device) * 1e-4
    adapters = min(tokens, num_adapters)
    groups = torch.arange(tokens, device=device) * adapters // tokens
    slots = (groups + 1).int()
    weight, positions = random(hidden), torch.arange(tokens, device=device)
    cos_sin = random(tokens, head)
    heads = {"num_heads": hidden // head, "num_kv_heads": hidden // head, "head_size": head}
    scales = torch.ones(adapters, 1, hidden, device=device)
    tiles = tiles_by_slot(tokens, groups, adapters)

    def every(call: Callable[[int], Any]) -> list[Callable[[], Any]]:
        return [lambda i=i: call(i) for i in range(copies)]

    def moved(values_per_token: int, bank_width: int) -> int:
        return 2 * tokens * values_per_token + 4 * adapters * bank_width

    return [
        Case("copy", every(lambda i: target[i].copy_(up[i])), moved(2 * up_width, 0)),
        Case(
            "gather_scale",
            every(lambda i: kernels.gather_scale_(x[i], bank[:, :hidden], slots)),
            moved(2 * hidden, hidden),
        ),
        Case(
            "scale_rope",
            every(
                lambda i: kernels.scale_rope_(
                    qkv[i], bank[:, :qkv_width], slots, positions, cos_sin, **heads
                )
            ),
            moved(2 * qkv_width, qkv_width),
        ),
        Case(
            "scale_act_mul",
            every(
                lambda i: kernels.scale_act_mul(
                    up[i], bank[:, :up_width], slots, out=target[i, :, :intermediate]
                )
            ),
            moved(up_width + intermediate, up_width),
        ),
        Case(
            "scale_gelu",
            every(lambda i: kernels.scale_gelu_(x[i], bank[:, :hidden], slots)),
            moved(2 * hidden, hidden),
        ),
        Case(
            "scale_add_norm",
            every(
                lambda i: kernels.scale_add_norm_(
                    x[i], residual[i], bank[:, :hidden], slots, weight
                )
            ),
            moved(4 * hidden, hidden),
        ),
        Case(
            "scale_by_slot, gradients",
            every(
                lambda i: torch.ops.propulsion.scale_by_slot_tiles(
                    *(residual[i], x[i], scales, tiles.slot, tiles.start, tiles.end),
                    *(tiles.groups, tiles.slot.shape[0], True, True),
                )
            ),
            moved(3 * hidden, hidden) + 4 * tiles.slot.shape[0] * hidden,
        ),
    ]
