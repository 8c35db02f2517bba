"""Zipf traffic over more adapters than fit: errors, hit rates, first-token times, memory.

    python -m benchmarks.traffic --json runs/bench/traffic.json

Publishes random adapters of a tiny LLaMA, starts `propulsion serve` in its own process and drives
it over HTTP with clients that each send one streamed completion after another, for an adapter drawn
by Zipf's law. What is measured is the server around the model, not the model: clients and server
share the machine.

Fields of the JSON: `requests`; `errors` (by HTTP status or exception) and `first_errors` (their
texts); `requests_per_second`; `host_hit_rate`, the share of requests whose adapter was in host
memory; `slot_hit_rate`, the share of the times an adapter joined the running batch that needed no
copy into a bank slot (the workers' own count, which reaches /metrics every 5 s); `evictions` by
level; `steady`, the same over the last 60 % of the run; `first_token_seconds` and
`request_seconds`: p50, p90, p99 and most of `all` requests that succeeded, of those whose adapter
was in host memory (`hit`) or not (`miss`), which the clients tell by following the server's
least-recently-used order (`predicted_misses` beside the server's own `counters` says how well);
`memory` of the `server`, its `engine` processes and both (`all`): MiB resident at 20 % of the run
and at its end, and the slope over the last 60 % with its standard error, that of a least-squares
line as if samples were independent.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.report import engine_machine, write_json
from benchmarks.traffic.clients import HostMirror, Traffic, send_request, zipf_draws
from benchmarks.traffic.server import Server
from benchmarks.traffic.store import VOCABULARY, publish_adapters, write_base
from benchmarks.traffic.summary import (
    WARM,
    Snapshot,
    memory_summary,
    print_result,
    quantiles,
    rates,
)

# The server's interval, and some more: the workers' counts are that old in /metrics.
WORKER_STATE_SECONDS = 6


async def read_counters(client: httpx.AsyncClient) -> dict[str, float]:
    """The server's own metrics without labels but level, state or reason; none if it died."""
    from prometheus_client.parser import text_string_to_metric_families

    try:
        text = (await client.get("/metrics")).raise_for_status().text
    except httpx.HTTPError:
        return {}
    prefix = "propulsion_serve_"
    return {
        "_".join([sample.name.removeprefix(prefix), *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith(prefix)
        and not sample.name.endswith("_created")
        and sample.labels.keys() <= {"level", "state", "reason"}
    }


async def drive(server: Server, names: Sequence[str], args: argparse.Namespace) -> dict[str, Any]:
    """The traffic, until its time is up, Ctrl-C or the server's end; what there is to report."""
    from rich.progress import Progress, TimeRemainingColumn

    seen, mirror = Traffic(), HostMirror(args.host_adapters)
    draws, generator = zipf_draws(len(names), args.exponent), np.random.default_rng(1)
    prompts = itertools.cycle(generator.integers(0, VOCABULARY, (4096, 16)).tolist())
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stopped.set)
    memory = [(0.0, server.memory())]
    snapshots: list[Snapshot] = []

    async def snapshot(client: httpx.AsyncClient) -> None:
        elapsed = time.monotonic() - start
        snapshots.append(Snapshot(elapsed, seen.requests, await read_counters(client)))

    async def visit() -> None:
        # A pool each: one pool serves many clients slowly, and not in their order.
        async with httpx.AsyncClient(base_url=server.url, timeout=120) as client:
            while not stopped.is_set():
                failed = seen.errors.total()
                await send_request(client, names[next(draws)], next(prompts), mirror, seen)
                if seen.errors.total() > failed:
                    # A dead server must not be asked a thousand times a second.
                    await asyncio.sleep(0.1)

    async with httpx.AsyncClient(base_url=server.url, timeout=120) as watcher:
        start = time.monotonic()
        await snapshot(watcher)
        clients = [asyncio.create_task(visit()) for _ in range(args.clients)]
        with Progress(*Progress.get_default_columns()[:-1], TimeRemainingColumn()) as progress:
            bar = progress.add_task("traffic", total=args.seconds)
            while not stopped.is_set():
                elapsed = time.monotonic() - start
                memory.append((elapsed, server.memory()))
                if len(snapshots) == 1 and elapsed >= WARM * args.seconds:
                    await snapshot(watcher)
                text = f"{seen.requests} requests, {seen.errors.total()} errors, "
                text += f"{memory[-1][1]['all']:.0f} MiB"
                progress.update(bar, completed=elapsed, description=text)
                if elapsed >= args.seconds or server.process.poll() is not None:
                    break
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stopped.wait(), min(1.0, args.seconds / 60))
        interrupted = stopped.is_set()
        stopped.set()
        await asyncio.gather(*clients)
        end = Snapshot(time.monotonic() - start, seen.requests, {})
        await asyncio.sleep(WORKER_STATE_SECONDS)
        end = replace(end, counters=await read_counters(watcher))
    warm = snapshots[1] if len(snapshots) > 1 else Snapshot(0, 0, {})
    return {
        "requests": seen.requests,
        "errors": dict(seen.errors),
        "first_errors": seen.first_errors,
        "seconds": end.seconds,
        "interrupted": interrupted,
        **rates(snapshots[0], end),
        "steady": rates(warm, end),
        "first_token_seconds": quantiles(seen.first_token),
        "request_seconds": quantiles(seen.total),
        "predicted_misses": len(seen.first_token[False]),
        "counters": end.counters,
        "counters_when_warm": warm.counters,
        "memory": memory_summary(memory),
        "memory_samples": [
            [round(t, 1), round(m["server"]), round(m["engine"])] for t, m in memory
        ],
    }


def measure(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Build base and store in `folder`, serve them, and drive the traffic."""
    from rich.progress import track

    base = write_base(folder / "base")
    start = time.monotonic()
    publishing = publish_adapters(folder / "store", folder / "adapter", base, args.adapters)
    names = list(track(publishing, "publishing adapters", total=args.adapters))
    published = time.monotonic()
    server = Server(base, folder / "store", args.log or folder / "log", args)
    try:
        server.wait_until_ready()
        ready = time.monotonic()
        result = asyncio.run(drive(server, names, args))
        result |= {"store_seconds": published - start, "startup_seconds": ready - published}
        result["status"] = None
        with contextlib.suppress(httpx.HTTPError):
            status = httpx.get(f"{server.url}/admin/v1/status", timeout=60)
            result["status"] = status.raise_for_status().json()
    finally:
        code = server.stop()
    return {**result, "server_exit_code": code}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.traffic", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--adapters", type=int, default=10_000, help="in the store")
    parser.add_argument("--slots", type=int, default=2000, help="of the bank")
    parser.add_argument("--host-adapters", type=int, help="in host memory; 3/2 slots by default")
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--exponent", type=float, default=1.0, help="of Zipf's law")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--log", type=Path, help="where the server's log goes")
    args = parser.parse_args()
    args.host_adapters = args.host_adapters or 3 * args.slots // 2

    # As an error, so that the server is stopped too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))

    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), args)
    result["arguments"] = {key: str(value) for key, value in vars(args).items()}
    result |= engine_machine()
    write_json(args.json, result)
    print_result(result)
    raise SystemExit(1 if result["errors"] else 0)


if __name__ == "__main__":
    main()
