"""The whole measurement, from starting replicas to the file of times."""

from __future__ import annotations

import os
import platform
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.capacity.measuring.adapter_costs import (
    AdapterCosts,
    AdapterSets,
    measure_adapter_costs,
)
from cluster.capacity.measuring.client import client_session, read_counters, read_status
from cluster.capacity.measuring.fit import fit_steps
from cluster.capacity.measuring.servers import Replica, ServerOptions
from cluster.capacity.measuring.waves import Timing, Wave, WaveSender
from cluster.capacity.times import AdapterTimes, Conditions, EngineLimits, ReplicaTimes
from propulsion.errors import ConfigError


@dataclass(frozen=True)
class Grid:
    """The loads that are measured."""

    concurrency: tuple[int, ...] = (1, 4, 8, 16)
    prompt_tokens: tuple[int, ...] = (16, 128)
    output_tokens: tuple[int, ...] = (4, 32)
    repeats: int = 5

    def waves(self) -> list[Wave]:
        """One wave for each combination."""
        return [
            Wave(c, p, o)
            for c in self.concurrency
            for p in self.prompt_tokens
            for o in self.output_tokens
        ]


def check_options(options: ServerOptions, grid: Grid) -> None:
    """Refuse loads that the replicas could not run.

    Raises:
        ConfigError: says which.
    """
    if max(grid.concurrency) > options.max_num_seqs:
        raise ConfigError(
            f"--concurrency {max(grid.concurrency)} is more than the {options.max_num_seqs} "
            "sequences of a batch: ask for fewer, or raise --max-num-seqs"
        )
    if max(grid.concurrency) > options.max_adapters:
        raise ConfigError(
            f"--concurrency {max(grid.concurrency)} is more than the {options.max_adapters} "
            "adapters of a batch: ask for fewer, or raise --max-adapters"
        )
    # The bank has a second slot for each adapter of a batch, should it need a pair of scales.
    if options.max_cpu_adapters <= 2 * options.max_adapters:
        raise ConfigError(
            f"host memory must hold more than the bank's {2 * options.max_adapters} slots, or a "
            "copy to a slot cannot be told from a load: raise --max-cpu-adapters"
        )
    prompts = max(grid.concurrency) * max(grid.prompt_tokens)
    if prompts > options.max_num_batched_tokens:
        raise ConfigError(
            f"{prompts} prompt tokens come at once, a step takes {options.max_num_batched_tokens}: "
            "ask for fewer or shorter ones, or raise --max-num-batched-tokens"
        )
    longest = max(grid.prompt_tokens) + max(grid.output_tokens)
    if longest > options.max_model_len:
        raise ConfigError(
            f"prompt and answer take up to {longest} tokens, the replicas {options.max_model_len}: "
            "ask for shorter ones, or raise --max-model-len"
        )


async def measure(
    replicas: Sequence[Replica],
    options: ServerOptions,
    grid: Grid,
    names: Sequence[str],
    tell: Callable[[str], None],
) -> ReplicaTimes:
    """Measure replicas that run.

    Args:
        replicas: all on this machine; all get every load at the same time.
        options: how they were started.
        grid: loads.
        names: adapters of their store, more than host memory holds.
        tell: gets a line for each phase.

    Raises:
        PropulsionError: a request failed.
    """
    load_before = os.getloadavg()[0]
    urls = [replica.url for replica in replicas]
    async with client_session() as session:
        status = await read_status(session, urls[0])
        counters = await read_counters(session, urls[0])
        sender = WaveSender(session, urls, vocabulary_size(options.base))
        sets = AdapterSets.of(names, max(grid.concurrency), options.max_cpu_adapters)
        tell(f"{len(grid.waves())} loads, {grid.repeats} times each")
        timings = await _measure_waves(sender, grid, sets)
        tell("adapters in slots, in host memory and in the store")
        costs = await measure_adapter_costs(
            sender,
            sets,
            concurrency=max(grid.concurrency) // 2 or 1,
            prompt_tokens=min(grid.prompt_tokens),
            repeats=2 * grid.repeats,
        )
    step, way, fit = fit_steps(timings)
    return ReplicaTimes(
        step=step,
        adapter=_adapter_times(costs, int(status["row_bytes"])),
        limits=EngineLimits(
            max_num_seqs=options.max_num_seqs,
            max_num_batched_tokens=options.max_num_batched_tokens,
            kv_cache_tokens=int(counters["kv_cache_tokens"]),
            batch_adapters=options.max_adapters,
            slots=int(status["slots"]["total"]),
            host_adapters=options.max_cpu_adapters,
        ),
        request_seconds=way,
        boot_seconds=statistics.median(replica.boot_seconds for replica in replicas),
        conditions=Conditions(
            **_device(),
            base=status["base"],
            replicas_at_once=len(replicas),
            concurrency=grid.concurrency,
            prompt_tokens=grid.prompt_tokens,
            output_tokens=grid.output_tokens,
            repeats=grid.repeats,
            load_average=(load_before, os.getloadavg()[0]),
            versions=_versions(),
        ),
        fit=fit,
    )


async def _measure_waves(
    sender: WaveSender, grid: Grid, sets: AdapterSets
) -> dict[Wave, list[Timing]]:
    waves = grid.waves()
    timings: dict[Wave, list[Timing]] = {wave: [] for wave in waves}
    for wave in waves:
        # The first time a batch has a new size, the engine may compile or allocate.
        await sender.send(wave, sets.warm)
    order = random.Random(0)
    for _ in range(grid.repeats):
        order.shuffle(waves)
        for wave in waves:
            timings[wave] += await sender.send(wave, sets.warm)
    return timings


def _adapter_times(costs: AdapterCosts, row_bytes: int) -> AdapterTimes:
    return AdapterTimes(
        load_seconds=costs.load,
        load_blocking_seconds=costs.blocking,
        slot_write_seconds=costs.slot_write,
        row_bytes=row_bytes,
    )


def vocabulary_size(base: Path) -> int:
    """Number of tokens that a base knows."""
    from transformers import AutoConfig

    return int(AutoConfig.from_pretrained(base).get_text_config().vocab_size)


def _device() -> dict[str, Any]:
    import torch

    if torch.cuda.is_available():
        return {"device": torch.cuda.get_device_name(), "gpus_per_replica": 1}
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line for line in lines if line.startswith("model name")), "")
    name = model.partition(":")[2].strip() or platform.machine()
    return {"device": f"{name}, {os.cpu_count()} cores", "gpus_per_replica": 0}


def _versions() -> dict[str, str]:
    import torch
    import vllm

    from propulsion.version import __version__

    return {"propulsion": __version__, "torch": torch.__version__, "vllm": vllm.__version__}
