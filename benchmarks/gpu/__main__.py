"""All that wants a GPU, in one command: are the kernels right, how fast, and what do they cost.

    python -m benchmarks.gpu --out runs/bench/gpu

It needs torch, triton and this repository, and nvcc for the CUDA kernels (else Triton's run); where
vLLM is installed, whole engines are measured too. It writes `gpu.json` and the same as tables,
`gpu.md`, after each part. What would not end within `--minutes` is left out and listed; `--parts`
runs some parts alone. With `--device cpu --tiny` everything runs but the clock: times are "not
measured".

Fields of the JSON: `correctness`, `bandwidth`, `decoding`, `bank` (of `resident`) and `engine`,
rows as in the modules of those names; `fused_difference`, between hidden states with fused and
unfused scales, by model; `goals`, each with its value; `left_out`, what was not measured and why;
`backends`, what ran each kernel and why.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import tables
from benchmarks.gpu.budget import Budget
from benchmarks.gpu.parts import PARTS, Settings, merge
from benchmarks.report import torch_machine, write_json
from propulsion.kernels.catalogue import KERNELS


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Every part that was asked for, one after another, written as far as it came."""
    budget = Budget(60 * args.minutes)
    with ThreadPoolExecutor(len(KERNELS)) as pool:
        # Each may be a compiler's run of its own.
        backends = list(pool.map(lambda kernel: kernel.backend(args.device), KERNELS))
    result: dict[str, Any] = {
        "backends": {
            kernel.name: f"{backend.name}: {backend.reason}"
            for kernel, backend in zip(KERNELS, backends, strict=True)
        },
        "machine": torch_machine(args.device),
        **{name: [] for name in ("correctness", "bandwidth", "decoding", "bank", "engine")},
        "fused_difference": {},
        "left_out": {name: "not asked for" for name in PARTS if name not in args.parts},
    }
    settings = Settings(args.device, args.tiny, 2 if args.tiny else args.rounds)
    for name, part in PARTS.items():
        if name not in args.parts:
            continue
        merge(result, part(settings, budget))
        result["left_out"] |= budget.left_out
        result["goals"] = tables.goals(result)
        result["minutes"] = budget.seconds_spent / 60
        write_json(args.out / "gpu.json", result)
        (args.out / "gpu.md").write_text(tables.markdown(result), encoding="utf-8")
    return result


def main() -> None:
    """Parse the options, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for gpu.json and gpu.md")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="sizes that say nothing of speed")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--minutes", type=float, default=7.5, help="what would take longer is left")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no GPU; `--device cpu --tiny` runs all of it, untimed")
    with torch.inference_mode():
        print(tables.markdown(run(args)))


if __name__ == "__main__":
    main()
