"""Adapter affinity against round robin, and what the loss of an engine and of a node costs.

Two replicas behind a gateway on Ray's multi-node test cluster, each with room for fewer adapters
than are asked for, so that a router that does not look at adapters must have them reloaded again
and again. Both routings meet the same traffic, in rounds with adapters of their own, each of which
begins with nothing loaded. Then, under load, one replica's engine is killed, and later a whole
node.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.cluster.load import Load
from benchmarks.cluster.nodes import Nodes, replica_counts, samples, wait_for
from benchmarks.cluster.summary import Fault, Round, print_result, summary
from benchmarks.report import engine_machine, write_json
from benchmarks.traffic.clients import zipf_draws
from benchmarks.traffic.store import publish_adapters, write_base

_REPLICAS = 2
_SPARE_NODES = 1
_MORE_ANSWERS = 50


def main() -> None:
    """Run everything, print a table, write JSON; exit code 1 if a request was lost."""
    args = _arguments()
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    # Workers import the code from where we do.
    os.environ["PYTHONPATH"] = os.getcwd()
    with tempfile.TemporaryDirectory(prefix="bench", dir="/tmp") as folder:
        root = Path(folder)
        base = write_base(root / "base")
        (root / "store").mkdir()
        count = args.rounds * args.adapters
        names = list(publish_adapters(root / "store", root / "adapter", base, count))
        nodes = Nodes(_REPLICAS + _SPARE_NODES, root / "ray")
        try:
            result = _measure(nodes, base, root / "store", names, args)
        finally:
            nodes.close()
    result["arguments"] = {key: str(value) for key, value in vars(args).items()}
    result |= engine_machine()
    write_json(args.json, result)
    print_result(result)
    raise SystemExit(1 if result["failed_requests"] else 0)


def _measure(
    nodes: Nodes, base: Path, store: Path, names: list[str], args: argparse.Namespace
) -> dict[str, Any]:
    from cluster.serving.config import cluster_serve_config

    rounds: dict[str, list[Round]] = {}
    faults: list[Fault] = []
    for routing in ("round_robin", "affinity"):
        config = cluster_serve_config(
            base=base,
            store=str(store),
            dtype="float32",
            max_model_len=256,
            max_adapters=args.slots,
            min_replicas=_REPLICAS,
            routing=routing,
        )
        nodes.deploy(config)
        nodes.wait_for_replicas(_REPLICAS)
        rounds[routing] = [
            _round(nodes, names[start : start + args.adapters], args)
            for start in range(0, len(names), args.adapters)
        ]
        if routing == "affinity":
            draws = _draw(names[: args.adapters], args.exponent)
            faults += [_fault(nodes, kind, draws, args) for kind in ("engine", "node")]
        nodes.delete()
    return summary(rounds, faults)


def _round(nodes: Nodes, names: list[str], args: argparse.Namespace) -> Round:
    before = _affinity_counts(nodes.url)
    started = time.monotonic()
    draws = _draw(names, args.exponent)
    with Load(nodes.url, draws, clients=args.clients, max_tokens=8, limit=args.requests) as load:
        load.wait()
    seconds = time.monotonic() - started
    hits, misses = (
        after - earlier for after, earlier in zip(_affinity_counts(nodes.url), before, strict=True)
    )
    return Round(
        hit_rate=hits / (hits + misses),
        requests_per_second=load.outcomes.requests / seconds,
        outcomes=load.outcomes,
    )


def _fault(nodes: Nodes, kind: str, draws: Iterator[str], args: argparse.Namespace) -> Fault:
    clients = args.fault_clients
    with Load(nodes.url, draws, clients=clients, max_tokens=args.fault_tokens) as load:
        load.wait_for(lambda seen: seen.ok >= _MORE_ANSWERS)
        killed = time.monotonic()
        nodes.kill_engine() if kind == "engine" else nodes.kill_node()
        wait_for(lambda: replica_counts(nodes.url)["running"] < _REPLICAS)
        nodes.wait_for_replicas(_REPLICAS)
        seconds = time.monotonic() - killed
        wanted = load.outcomes.ok + _MORE_ANSWERS
        load.wait_for(lambda seen: seen.ok >= wanted)
    return Fault(kind, seconds, load.outcomes.longest_pause(killed), load.outcomes)


def _draw(names: list[str], exponent: float) -> Iterator[str]:
    return (names[index] for index in zipf_draws(len(names), exponent))


def _affinity_counts(url: str) -> tuple[float, float]:
    import httpx

    counts = {name: value for name, _, value in samples(httpx.get(f"{url}/metrics").text)}
    return tuple(  # type: ignore[return-value]
        counts.get(f"propulsion_cluster_affinity_{kind}_total", 0.0) for kind in ("hits", "misses")
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster", description=__doc__)
    parser.add_argument("--json", type=Path, required=True, help="Where to write the result.")
    parser.add_argument("--adapters", type=int, default=24, help="Adapters asked for in a round.")
    parser.add_argument(
        "--slots", type=int, default=16, help="Adapters that one replica holds, fewer than those."
    )
    parser.add_argument("--exponent", type=float, default=1.0, help="Of Zipf's law.")
    parser.add_argument("--rounds", type=int, default=3, help="Rounds with each routing.")
    parser.add_argument("--requests", type=int, default=1500, help="Requests in a round.")
    parser.add_argument("--clients", type=int, default=8, help="Requests at a time in a round.")
    parser.add_argument("--fault-clients", type=int, default=4, help="At a time, under faults.")
    parser.add_argument("--fault-tokens", type=int, default=100, help="Of an answer, under faults.")
    args = parser.parse_args()
    if not args.slots < args.adapters <= _REPLICAS * args.slots:
        parser.error("--adapters must be more than --slots, and at most twice as many")
    return args


if __name__ == "__main__":
    main()
