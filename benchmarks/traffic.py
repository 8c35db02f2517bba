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
import collections
import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.report import engine_machine, write_json

MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
VOCABULARY = 256
# The share of the run after which the server is taken to be warm.
WARM = 0.4
STARTUP_SECONDS = 300
# The server's interval, and some more: the workers' counts are that old in /metrics.
WORKER_STATE_SECONDS = 6


def write_base(folder: Path) -> Path:
    """A random 2-layer LLaMA of hidden 64, and a tokenizer of its numbers."""
    import torch
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({str(i): i for i in range(VOCABULARY)}, unk_token="0"))
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="0").save_pretrained(folder)
    return folder


def publish_adapters(place: Path, folder: Path, base: Path, count: int) -> Iterator[str]:
    """Publish random adapters, through `folder`, to the store at `place`; yields their names."""
    import torch
    from peft import get_peft_model
    from safetensors.torch import load_file, save_file
    from transformers import AutoModelForCausalLM

    from adapters import base_fingerprint
    from adapters.manifest import README_FILE, WEIGHTS_FILE
    from adapters.store import AdapterStore
    from propulsion import PropulsionConfig

    config = PropulsionConfig(target_modules=list(MODULES), task_type="CAUSAL_LM")
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(folder)
    (folder / README_FILE).unlink(missing_ok=True)
    shapes = {key: value.shape for key, value in load_file(folder / WEIGHTS_FILE).items()}
    store, fingerprint = AdapterStore(place), base_fingerprint(base)
    generator = torch.Generator().manual_seed(0)
    for index in range(count):
        tensors = {k: torch.randn(s, generator=generator) * 1e-3 for k, s in shapes.items()}
        save_file(tensors, folder / WEIGHTS_FILE)
        name = f"adapter-{index:05d}"
        store.publish(folder, name, base_fingerprint=fingerprint)
        yield name


def zipf_draws(count: int, exponent: float, seed: int = 0) -> Iterator[int]:
    """Indices below `count`, for ever; the k-th most frequent one has weight k ** -exponent."""
    generator = np.random.default_rng(seed)
    ranking = generator.permutation(count)
    cumulative = np.cumsum(np.arange(1, count + 1, dtype=np.float64) ** -exponent)
    while True:
        place = np.searchsorted(cumulative, generator.random(1024) * cumulative[-1], side="right")
        yield from ranking[np.minimum(place, count - 1)].tolist()


class HostMirror:
    """What the server's host memory should hold: the adapters used last, `capacity` of them."""

    def __init__(self, capacity: int):
        self._capacity = capacity
        self._names: collections.OrderedDict[str, None] = collections.OrderedDict()

    def sent(self, name: str) -> bool:
        """Whether a request sent now finds its adapter there."""
        if name not in self._names:
            return False
        self._names.move_to_end(name)
        return True

    def answered(self, name: str) -> None:
        """The adapter of a request that gets its first token is there, whatever was before."""
        self._names.setdefault(name)
        if len(self._names) > self._capacity:
            self._names.popitem(last=False)


@dataclass
class Traffic:
    """What the clients saw. Times are those of requests that succeeded, in seconds.

    Attributes:
        first_token, total: by whether the adapter was in host memory.
        errors: by HTTP status or name of the exception.
        first_errors: the text of the first error of each kind.
    """

    requests: int = 0
    first_token: dict[bool, list[float]] = field(default_factory=lambda: {True: [], False: []})
    total: dict[bool, list[float]] = field(default_factory=lambda: {True: [], False: []})
    errors: collections.Counter[str] = field(default_factory=collections.Counter)
    first_errors: dict[str, str] = field(default_factory=dict)

    def fail(self, kind: str, text: str) -> None:
        """Count an error."""
        self.errors[kind] += 1
        self.first_errors.setdefault(kind, text[:500])


@dataclass(frozen=True)
class Snapshot:
    """The server's counters at one moment of the run, and the clients' count of requests."""

    seconds: float
    requests: int
    counters: dict[str, float]


class Server:
    """`propulsion serve` in a session of its own, so that Ctrl-C reaches the benchmark alone."""

    def __init__(self, base: Path, store: Path, log: Path, args: argparse.Namespace):
        self.log = log
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        command = [
            *(sys.executable, "-m", "propulsion", "serve", "--dtype", "float32"),
            *("--base", str(base), "--store", str(store), "--port", str(port)),
            *("--max-adapters", str(args.slots), "--max-cpu-adapters", str(args.host_adapters)),
            # Few blocks, which are all in use soon: memory touched for the first time is no leak.
            *("--", "--num-gpu-blocks-override", str(8 * args.clients)),
        ]
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )

    def wait_until_ready(self) -> None:
        """Return once it serves; raises RuntimeError with the end of its log if it does not."""
        deadline = time.monotonic() + STARTUP_SECONDS
        while self.process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/health", timeout=5).status_code == 200:
                    return
            time.sleep(0.2)
        raise RuntimeError(f"the server did not start:\n{self.log.read_text()[-4000:]}")

    def memory(self) -> dict[str, float]:
        """MiB resident, of the server's process and of those it started."""
        import psutil

        def mib(process: psutil.Process) -> float:
            try:
                return process.memory_info().rss / 2**20
            except psutil.NoSuchProcess:
                return 0.0

        try:
            own = psutil.Process(self.process.pid)
            sizes = {"server": mib(own), "engine": sum(map(mib, own.children(recursive=True)))}
        except psutil.NoSuchProcess:
            sizes = {"server": 0.0, "engine": 0.0}
        return {**sizes, "all": sum(sizes.values())}

    def stop(self) -> int:
        """Stop it as an operator would; its exit code."""
        self.process.terminate()
        try:
            return self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            return -signal.SIGKILL
        finally:
            # The engine too, should it have outlived the server.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)


async def send_request(
    client: httpx.AsyncClient, name: str, prompt: Sequence[int], mirror: HostMirror, seen: Traffic
) -> None:
    """One streamed completion of 8 tokens, counted and timed in `seen`."""
    body = {"model": name, "prompt": prompt, "max_tokens": 8, "ignore_eos": True, "stream": True}
    hit = mirror.sent(name)
    seen.requests += 1
    start = time.perf_counter()
    first, last = None, ""
    try:
        async with client.stream("POST", "/v1/completions", json=body) as answer:
            if answer.status_code != 200:
                text = (await answer.aread()).decode(errors="replace")
                return seen.fail(str(answer.status_code), text)
            async for line in answer.aiter_lines():
                if '"error"' in line:
                    # The engine's, of an answer that had begun; the stream ends like any other.
                    return seen.fail("error_in_stream", line)
                if line and first is None:
                    first = time.perf_counter() - start
                    mirror.answered(name)
                last = line or last
    except httpx.HTTPError as error:
        return seen.fail(type(error).__name__, str(error))
    if last != "data: [DONE]" or first is None:
        return seen.fail("stream_cut_short", last)
    seen.first_token[hit].append(first)
    return seen.total[hit].append(time.perf_counter() - start)


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


def rates(before: Snapshot, after: Snapshot) -> dict[str, Any]:
    """Requests a second, hit rates and evictions between two moments; None where not known."""
    if not before.counters or not after.counters or after.requests == before.requests:
        return dict.fromkeys(("requests_per_second", "host_hit_rate", "slot_hit_rate", "evictions"))

    def grown(name: str) -> float:
        return after.counters.get(name, 0.0) - before.counters.get(name, 0.0)

    def hit_rate(level: str) -> float:
        hits, misses = grown(f"{level}_hits_total"), grown(f"{level}_misses_total")
        return hits / max(hits + misses, 1)

    num_requests = after.requests - before.requests
    return {
        "requests_per_second": num_requests / (after.seconds - before.seconds),
        "host_hit_rate": hit_rate("host_cache"),
        "slot_hit_rate": hit_rate("slot"),
        "evictions": {level: grown(f"evictions_total_{level}") for level in ("host", "slot")},
    }


def quantiles(times: dict[bool, list[float]]) -> dict[str, dict[str, float] | None]:
    """p50, p90, p99 and the most, of all and by whether the adapter was in host memory."""

    def of(values: list[float]) -> dict[str, float] | None:
        if not values:
            return None
        found = np.percentile(values, [50, 90, 99, 100]).tolist()
        return dict(zip(("p50", "p90", "p99", "most"), found, strict=True))

    return {"all": of(times[True] + times[False]), "hit": of(times[True]), "miss": of(times[False])}


def memory_summary(samples: Sequence[tuple[float, dict[str, float]]]) -> dict[str, Any]:
    """MiB at 20 % and at the end, and the slope of the rest after 40 %, by process."""
    seconds = np.array([elapsed for elapsed, _ in samples])
    summary: dict[str, Any] = {}
    for who in samples[0][1]:
        mib = np.array([sizes[who] for _, sizes in samples])
        warm = seconds >= WARM * seconds[-1]
        slope = error = None
        if warm.sum() > 3:
            line, covariance = np.polyfit(seconds[warm] / 60, mib[warm], 1, cov=True)
            slope, error = float(line[0]), float(covariance[0, 0] ** 0.5)
        summary[who] = {
            "mib_at_20_percent": float(mib[np.searchsorted(seconds, 0.2 * seconds[-1])]),
            "mib_at_end": float(mib[-1]),
            "slope_mib_per_minute": slope,
            "slope_standard_error": error,
        }
    return summary


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


def print_result(result: dict[str, Any]) -> None:
    """One table, and the first error of each kind."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{result['requests']:,} requests in {result['seconds']:.0f} s")
    for column in ("", "whole run", "last 60 %"):
        table.add_column(column, justify="right" if column else "left")

    def add(name: str, form: str, *values: float | None) -> None:
        table.add_row(name, *("-" if value is None else format(value, form) for value in values))

    parts = (result, result["steady"])
    add("errors", "d", sum(result["errors"].values()))
    add("requests a second", ",.1f", *(part["requests_per_second"] for part in parts))
    for level in ("host", "slot"):
        add(f"{level} hit rate", ".1%", *(part[f"{level}_hit_rate"] for part in parts))
        found = [(part["evictions"] or {}).get(level) for part in parts]
        add(f"{level} evictions", ",.0f", *found)
    for kind, times in result["first_token_seconds"].items():
        for quantile, seconds in (times or {}).items():
            add(f"first token, {kind}, {quantile} (ms)", ",.1f", 1e3 * seconds)
    for who, found in result["memory"].items():
        ends = (found["mib_at_20_percent"], found["mib_at_end"])
        add(f"{who}, MiB at 20 %, at the end", ",.0f", *ends)
        line = (found["slope_mib_per_minute"], found["slope_standard_error"])
        add(f"{who}, MiB a minute, its error", ".2f", *line)
    Console().print(table)
    for kind, count in result["errors"].items():
        print(f"{count} × {kind}: {result['first_errors'][kind]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
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
