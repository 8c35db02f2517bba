"""All that wants a GPU, in one command: are the kernels right, how fast, and what do they cost.

    python -m benchmarks.gpu --out runs/bench/gpu

It needs torch, triton and this repository, and nvcc for the CUDA kernels (else Triton's run). It
writes `gpu.json` and the same as tables, `gpu.md`. With `--device cpu --tiny` everything runs but
the clock: times are "not measured".

Fields of the JSON: `correctness`, `bandwidth` and `decoding`, rows as in the modules of that name;
`fused_difference`, between hidden states with fused and unfused scales; `goals`, each with its
value; `backends`, what ran each kernel and why.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import bandwidth, correctness, decoding, tables
from benchmarks.gpu.decoder import Shape
from benchmarks.report import torch_machine, write_json
from propulsion.kernels.catalogue import KERNELS

LLAMA_7B = Shape(layers=32, hidden=4096, intermediate=11008, head=128, tokens=1, context=0)
TINY = Shape(layers=2, hidden=64, intermediate=96, head=16, tokens=1, context=0)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Every part, one after another."""
    start = time.monotonic()
    device, tiny = args.device, args.tiny
    with ThreadPoolExecutor(len(KERNELS)) as pool:
        # Each may be a compiler's run of its own.
        backends = list(pool.map(lambda kernel: kernel.backend(device), KERNELS))
    shape = TINY if tiny else LLAMA_7B
    adapters = 3 if tiny else 256
    rounds = 2 if tiny else args.rounds
    dtype = torch.bfloat16
    decode = [(2, 4), (6, 4)] if tiny else [(size, 512) for size in (1, 8, 64)] + [(256, 128)]
    sizes = [*decode, (6 if tiny else 2048, 0)]
    result: dict[str, Any] = {
        "backends": {
            kernel.name: f"{backend.name}: {backend.reason}"
            for kernel, backend in zip(KERNELS, backends, strict=True)
        },
        "machine": torch_machine(device),
        "correctness": (
            correctness.check_all(device, 5, (64, 51))
            if tiny
            else correctness.check_all(device, 300)
        ),
        "bandwidth": [
            row
            for tokens in ((4,) if tiny else (64, 256, 2048, 8192))
            for row in bandwidth.measure(
                device, tokens, adapters, shape.hidden, shape.intermediate, rounds
            )
        ],
    }
    whole = decoding.decoder_of(shape, device, dtype)
    result["fused_difference"] = decoding.largest_difference(whole.resized(*sizes[1]), adapters)
    layer = decoding.one_layer(whole)
    result["decoding"] = [
        *decoding.measure(layer, sizes, adapters, rounds, budget_seconds=2.0),
        *decoding.measure(whole, sizes, adapters, rounds, budget_seconds=8.0),
    ]
    result["goals"] = tables.goals(result)
    result["minutes"] = (time.monotonic() - start) / 60
    return result


def main() -> None:
    """Parse the options, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for gpu.json and gpu.md")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="sizes that say nothing of speed")
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no GPU; `--device cpu --tiny` runs all of it, untimed")
    with torch.inference_mode():
        result = run(args)
    write_json(args.out / "gpu.json", result)
    text = tables.markdown(result)
    (args.out / "gpu.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
