"""Measure, compare, simulate, report: `docs/results/simulation.md` and its pictures.

    python -m benchmarks.simulation --out docs/results

Starts two real replicas of a base, measures what a replica takes, runs the same traffic for real
and in the simulation, then simulates what cannot be run here. Writes `simulation.md` and, in a
folder `simulation` beside it, `results.json` and the pictures. `--resimulate` takes what was
measured from those results, `--redraw` writes the report again from all of them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.report import write_json
from benchmarks.simulation.document import write_document
from benchmarks.simulation.experiments import Sizes, run_experiments
from benchmarks.simulation.plots import plot_all
from benchmarks.simulation.validation import Load, validate
from cluster.capacity.measuring.interruption import interrupted_by_terminate
from cluster.capacity.measuring.measure import Grid, check_options, measure, vocabulary_size
from cluster.capacity.measuring.probe_adapters import publish_probes
from cluster.capacity.measuring.servers import ServerOptions, running_replicas
from cluster.capacity.times import ReplicaTimes, read_times

_REPLICAS = 2
_BASE = Path(__file__).parents[2] / "examples" / "tiny_base" / "model"


def measure_and_validate(
    args: argparse.Namespace, tell: Callable[[str], None]
) -> tuple[ReplicaTimes, dict[str, Any]]:
    """Start the replicas, measure them, and hold the simulation against them."""
    grid = Grid(repeats=args.repeats)
    with tempfile.TemporaryDirectory() as place, interrupted_by_terminate():
        options = ServerOptions(
            base=args.base, store=Path(place) / "store", dtype="float32", own_core=True
        )
        check_options(options, grid)
        tell("publishing adapters")
        names = publish_probes(args.base, options.store, args.adapters)
        tell("starting two replicas")
        with running_replicas(options, _REPLICAS, Path(place) / "logs") as replicas:
            times = asyncio.run(measure(replicas, options, grid, names, tell))
            urls = [replica.url for replica in replicas]
            vocabulary = vocabulary_size(args.base)
            load = Load(seconds=args.seconds)
            return times, validate(urls, names, times, load, vocabulary, tell)


def run(args: argparse.Namespace, results: Path, tell: Callable[[str], None]) -> dict[str, Any]:
    """Everything that goes into the results; what is measured is written before the rest begins."""
    began = time.monotonic()
    if args.resimulate:
        before = json.loads(results.read_text(encoding="utf-8"))
        times = ReplicaTimes.model_validate(before["times"])
        validation, began = before["validation"], began - before["measuring_seconds"]
    elif args.times:
        times, validation = read_times(args.times), None
    else:
        times, validation = measure_and_validate(args, tell)
    measured = {
        "times": times.model_dump(mode="json"),
        "validation": validation,
        "measuring_seconds": time.monotonic() - began,
    }
    write_json(results, measured)
    return {
        **measured,
        "experiments": run_experiments(times, _sizes(args.requests), tell),
        "seconds": time.monotonic() - began,
    }


def _sizes(requests: int) -> Sizes:
    """The usual sizes, or all of them smaller, for a try."""
    sizes = Sizes()
    share = requests / sizes.requests
    if share >= 1:
        return replace(sizes, requests=requests)
    return Sizes(
        replicas=max(10, round(share * sizes.replicas)),
        adapters=max(10_000, round(share * sizes.adapters)),
        requests=requests,
        small_replicas=10,
        small_requests=max(1000, round(share * sizes.small_requests)),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.simulation", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the report")
    parser.add_argument("--base", type=Path, default=_BASE, help="base model that is measured")
    parser.add_argument("--times", type=Path, help="measured times; then nothing real is run")
    parser.add_argument("--adapters", type=int, default=300, help="in the real run")
    parser.add_argument("--seconds", type=float, default=60, help="of a real run; there are two")
    parser.add_argument("--repeats", type=int, default=5, help="of each measured load")
    parser.add_argument("--requests", type=int, default=500_000, help="of the largest simulation")
    parser.add_argument("--price-per-replica-hour", type=float, default=1.0, help="an assumption")
    parser.add_argument("--ttft-p99-seconds", type=float, default=0.15, help="a promise to look at")
    parser.add_argument(
        "--resimulate", action="store_true", help="with what its results say was measured"
    )
    parser.add_argument("--redraw", action="store_true", help="the report again, from its results")
    args = parser.parse_args()

    from rich.console import Console

    folder = args.out / "simulation"
    folder.mkdir(parents=True, exist_ok=True)
    if args.redraw:
        result = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    else:
        console = Console()
        with console.status("starting") as status:
            result = run(args, folder / "results.json", status.update)
        write_json(folder / "results.json", result)
    result |= {
        "price_per_replica_hour": args.price_per_replica_hour,
        "ttft_p99_seconds": args.ttft_p99_seconds,
    }
    plot_all(result["experiments"], folder, args.ttft_p99_seconds, args.price_per_replica_hour)
    report = write_document(result, "simulation")
    (args.out / "simulation.md").write_text(report, encoding="utf-8")
    print(f"written to {args.out / 'simulation.md'}")


if __name__ == "__main__":
    main()
