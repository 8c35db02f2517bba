"""Compile all kernels ahead of time, beside their sources, where a wheel takes them along.

    python -m propulsion.kernels.build                # what this machine has compilers for
    python -m propulsion.kernels.build --device cuda --architectures 90

Neither a GPU nor a torch with CUDA is needed.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from propulsion.kernels import compiler

SOURCES = {"cpu": "cpu.cpp", "cuda": "cuda.cu"}


def sources(device: str) -> list[Path]:
    """The sources of all kernels for "cpu" or "cuda"."""
    return sorted(Path(__file__).parent.glob(f"*/{SOURCES[device]}"))


def main() -> None:
    """Parse the options, and compile."""
    parser = argparse.ArgumentParser(description="Compile all kernels ahead of time.")
    parser.add_argument("--device", choices=["all", *SOURCES], default="all")
    parser.add_argument(
        "--architectures",
        default=",".join(map(str, compiler.ARCHITECTURES)),
        help="compute capabilities times ten, separated by commas",
    )
    parser.add_argument("--out", type=Path, help="folder; by default that of each source")
    parser.add_argument("--strict", action="store_true", help="take warnings for errors")
    args = parser.parse_args()
    architectures = tuple(int(number) for number in args.architectures.split(","))
    has = {"cpu": compiler.cxx(), "cuda": compiler.nvcc()}
    devices = (
        [device for device in SOURCES if has[device]] if args.device == "all" else [args.device]
    )
    for device in devices:
        for source in sources(device):
            start = time.monotonic()
            folder = args.out or source.parent
            folder.mkdir(parents=True, exist_ok=True)
            library = folder / compiler.library_name(source, architectures)
            compiler.build(source, library, architectures, strict=args.strict)
            print(f"{library}  ({time.monotonic() - start:.0f} s)")


if __name__ == "__main__":
    main()
