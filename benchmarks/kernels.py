"""The C++ operators of the CPU beside torch, on batches that mix adapters.

    python -m benchmarks.kernels --json runs/bench/kernels.json

Each kernel is timed beside what torch does without it. The two take turns, and the order of a round
is the reverse of the last one's, so that a ratio is of neighbours in time.

Fields of the JSON: `kernels`, a row for each kernel and dtype: `torch_seconds` and `native_seconds`
(medians over rounds), `speedup` (median over rounds of torch / native in the same round) and
`speedup_quartiles`; `cpu_speedup`, the speedup of `gather_scale` in fp32 over an index-select and a
multiplication in place; `largest_difference` from the reference in fp32.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from benchmarks.report import torch_machine, write_json
from propulsion import kernels
from propulsion.kernels.catalogue import KERNELS
from propulsion.kernels.scale_by_slot import reference as by_slot
from propulsion.kernels.scale_by_slot import tiled

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
HEAD = 128


@dataclass(frozen=True)
class Case:
    """The same work by torch and by a kernel; both return what they computed."""

    kernel: str
    dtype: str
    in_torch: Callable[[], Any]
    native: Callable[[], Any]


def cases(args: argparse.Namespace, name: str, dtype: torch.dtype) -> list[Case]:
    """Every kernel on one random batch, in one dtype."""
    torch.manual_seed(0)
    tokens, width = args.tokens, args.width
    x, wide = torch.randn(tokens, width).to(dtype), torch.randn(tokens, 2 * width).to(dtype)
    # Small, since some calls scale the same values again and again.
    bank = torch.randn(args.slots + 1, 2 * width) * 1e-4
    bank[0] = 0
    narrow = bank[:, :width]
    slots = torch.randint(1, args.slots + 1, (tokens,), dtype=torch.int32)
    weight = torch.ones(width, dtype=dtype)
    angles = torch.randn(tokens, HEAD // 2)
    cos_sin = torch.cat((angles.cos(), angles.sin()), 1).to(dtype)
    positions = torch.arange(tokens)
    heads = {"num_heads": width // HEAD // 2, "num_kv_heads": width // HEAD // 4}
    rotated = sum(heads.values()) * HEAD
    grad, groups = torch.randn(tokens, width).to(dtype), slots.long() % args.slots
    scales = torch.rand(args.slots, 1, width)

    def factor(rows: torch.Tensor = narrow) -> torch.Tensor:
        return 1 + rows.index_select(0, slots)

    def rope() -> torch.Tensor:
        scaled = (x * factor()).to(dtype)
        a, b = scaled[:, :rotated].view(tokens, -1, 2, HEAD // 2).unbind(2)
        cosine, sine = cos_sin[positions][:, None].chunk(2, -1)
        turned = torch.stack((a * cosine - b * sine, b * cosine + a * sine), 2)
        return torch.cat((turned.view(tokens, rotated), scaled[:, rotated:]), 1)

    def act_mul() -> torch.Tensor:
        gate, up = (wide * factor(bank)).to(dtype).chunk(2, -1)
        return F.silu(gate) * up

    def add_norm() -> torch.Tensor:
        total = grad + (x * factor()).to(dtype)
        return F.rms_norm(total, (width,), weight, 1e-6)

    in_place = x.clone(), x.clone()
    return [
        Case(
            *("gather_scale", name),
            lambda: in_place[0].mul_(factor()),
            lambda: kernels.gather_scale_(in_place[1], narrow, slots),
        ),
        Case(
            *("scale_rope", name, rope),
            lambda: kernels.scale_rope(
                x, narrow, slots, positions, cos_sin, head_size=HEAD, **heads
            ),
        ),
        Case(
            *("scale_act_mul", name, act_mul),
            lambda: kernels.scale_act_mul(wide, bank, slots),
        ),
        Case(
            *("scale_gelu", name),
            lambda: F.gelu((x * factor()).to(dtype), approximate="tanh"),
            lambda: kernels.scale_gelu(x, narrow, slots),
        ),
        Case(
            *("scale_add_norm", name, add_norm),
            lambda: kernels.scale_add_norm(x, grad, narrow, slots, weight)[0],
        ),
        Case(
            *("scale_by_slot, gradients", name),
            lambda: by_slot.scale_backward(grad, x, scales, groups)[0],
            lambda: tiled.scale_backward(grad, x, scales, groups)[0],
        ),
    ]


def seconds(call: Callable[[], Any], repeats: int) -> float:
    """Of one call, on average over some in a row."""
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def measure_case(case: Case, rounds: int, repeats: int) -> dict[str, Any]:
    """Times of both sides, round by round."""
    difference = (case.in_torch().float() - case.native().float()).abs().max().item()
    times: dict[str, list[float]] = {"torch": [], "native": []}
    sides = [("torch", case.in_torch), ("native", case.native)]
    for turn in range(rounds):
        for side, call in sides if turn % 2 else reversed(sides):
            times[side].append(seconds(call, repeats))
    ratios = [a / b for a, b in zip(times["torch"], times["native"], strict=True)]
    quartiles = statistics.quantiles(ratios, n=4) if rounds > 1 else ratios * 3
    return {
        "kernel": case.kernel,
        "dtype": case.dtype,
        "torch_seconds": statistics.median(times["torch"]),
        "native_seconds": statistics.median(times["native"]),
        "speedup": statistics.median(ratios),
        "speedup_quartiles": [quartiles[0], quartiles[2]],
        "largest_difference": difference,
    }


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """All cases, one after another."""
    rows = [
        measure_case(case, args.rounds, args.repeats)
        for name, dtype in DTYPES.items()
        for case in cases(args, name, dtype)
    ]
    return {
        "cpu_speedup": rows[0]["speedup"],
        "kernels": rows,
        "largest_difference": max(
            row["largest_difference"] for row in rows if row["dtype"] == "fp32"
        ),
        "backends": {kernel.name: kernel.backend("cpu").reason for kernel in KERNELS},
        "settings": {k: v for k, v in vars(args).items() if k != "json"},
        "machine": torch_machine("cpu"),
    }


def print_table(result: dict[str, Any]) -> None:
    """One line a kernel and dtype."""
    print(f"{'kernel':<26}{'dtype':<7}{'torch ms':>10}{'C++ ms':>9}{'speedup':>9}  quartiles")
    for row in result["kernels"]:
        low, high = row["speedup_quartiles"]
        print(
            f"{row['kernel']:<26}{row['dtype']:<7}{1e3 * row['torch_seconds']:>10.3f}"
            f"{1e3 * row['native_seconds']:>9.3f}{row['speedup']:>9.2f}  {low:.2f}-{high:.2f}"
        )


def main() -> None:
    """Parse the options, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, required=True, help="where the numbers go")
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--width", type=int, default=4096, help="a multiple of 512")
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", choices=["cpu"], default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with torch.inference_mode():
        result = measure(args)
    print_table(result)
    write_json(args.json, result)


if __name__ == "__main__":
    main()
