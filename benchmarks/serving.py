"""What adapters cost a vLLM engine: none, ours idle, one, many and very many, and vLLM's LoRA.

    python -m benchmarks.serving --json runs/bench/serving.json

The base is a LLaMA with random weights (8 layers of hidden 1024 unless `--base` is given). Four
engines run in processes of their own and take turns, so that each round measures all side by side:
vLLM without adapters, with our plug-in, with our plug-in and no fusion, with its own LoRA. Every
adapter acts on all linear layers.

Fields of the JSON: tokens per second, medians over the rounds: `base`, `plugin_idle` (plug-in on,
no adapter used), `plugin_1`, `plugin_64` (each request its own of 64 adapters), `unfused_64` (the
same, every layer scaled in a pass of its own), `lora_16` (vLLM's LoRA of rank 8, 16 adapters),
`distinct_5` and `distinct_N` (as many requests as the plug-in has slots, over 5 adapters or each
its own, all resident). `rounds` holds each round, `ratio` those to `base` as median, least and
most; `first_token_seconds` p50 and p99 for an adapter the engine never saw (`cold`, reading its
files included) and right after (`warm`).
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.adapter_files import LORA_RANK, write_adapters
from benchmarks.engines import Engine, EngineSpec
from benchmarks.report import engine_machine, write_json

FEW = 5


def write_base(folder: Path, args: argparse.Namespace) -> Path:
    """A LLaMA with random weights, in bf16."""
    import torch
    from transformers import LlamaForCausalLM

    from benchmarks.llama import llama_config

    torch.manual_seed(0)
    config = llama_config(args.layers, args.hidden, args.vocabulary, bos_token_id=1, eos_token_id=2)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


def engine_specs(base: Path, args: argparse.Namespace) -> dict[str, EngineSpec]:
    """The engines that take turns, by name."""
    options: dict[str, Any] = {
        "dtype": args.dtype,
        "enforce_eager": True,
        "max_num_seqs": args.requests,
        "max_model_len": 512,
        "disable_log_stats": True,
        "enable_prefix_caching": False,
        "skip_tokenizer_init": True,
    }
    lora = {"enable_lora": True, "max_loras": 16, "max_lora_rank": LORA_RANK}
    plugin = {**options, "max_adapters": args.slots}
    return {
        "base": EngineSpec("base", base, args.prompt, options),
        "plugin": EngineSpec("propulsion", base, args.prompt, plugin),
        "unfused": EngineSpec("propulsion", base, args.prompt, {**plugin, "fusion": False}),
        "lora": EngineSpec("lora", base, args.prompt, {**options, **lora}),
    }


def measure(base: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Tokens per second of every round, by what was measured, and times to the first token."""
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        ours = write_adapters(Path(folder), base, args.slots, "propulsion")
        loras = write_adapters(Path(folder), base, 16, "lora")
        engines: dict[str, Engine] = {}
        for name, spec in engine_specs(base, args).items():
            engines[name] = stack.enter_context(Engine(spec))
            engines[name].wait_until_ready()
        idle = [None] * args.requests
        workloads: dict[str, tuple[str, list[Path | None]]] = {
            "base": ("base", idle),
            "plugin_idle": ("plugin", idle),
            "plugin_1": ("plugin", ours[:1] * args.requests),
            "plugin_64": ("plugin", _spread(ours[:64], args.requests)),
            "unfused_64": ("unfused", _spread(ours[:64], args.requests)),
            "lora_16": ("lora", _spread(loras, args.requests)),
        }
        plugin = engines["plugin"]
        first = plugin.first_token_seconds(ours[: args.cold])
        # Every adapter is used once, so that what is timed next is traffic, not loading.
        plugin.rate(ours, 1)
        rates: dict[str, list[float]] = {name: [] for name in workloads}
        for turn in range(args.rounds + 1):
            for name, (engine, folders) in workloads.items():
                rate = engines[engine].rate(folders, args.tokens)
                # The first turn warms up.
                if turn:
                    rates[name].append(rate)
        few, many = f"distinct_{FEW}", f"distinct_{args.slots}"
        rates |= {few: [], many: []}
        for _ in range(args.distinct_rounds):
            rates[few].append(plugin.rate(_spread(ours[:FEW], args.slots), 8))
            rates[many].append(plugin.rate(ours, 8))
        return {"rates": rates, "first": first}


def _spread(folders: Sequence[Path], count: int) -> list[Path | None]:
    return [folders[index % len(folders)] for index in range(count)]


def report(measured: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """The JSON document."""
    rates = measured["rates"]
    result: dict[str, Any] = {name: statistics.median(values) for name, values in rates.items()}
    ratios = {
        name: [value / base for value, base in zip(values, rates["base"], strict=True)]
        for name, values in rates.items()
        if not name.startswith("distinct")
    }
    few, many = rates[f"distinct_{FEW}"], rates[f"distinct_{args.slots}"]
    ratios[f"distinct_{args.slots}_to_{FEW}"] = [b / a for a, b in zip(few, many, strict=True)]
    result["ratio"] = {
        name: {"median": statistics.median(values), "least": min(values), "most": max(values)}
        for name, values in ratios.items()
    }
    cold, warm = (sorted(times) for times in zip(*measured["first"], strict=True))
    result["first_token_seconds"] = {
        name: {"p50": times[len(times) // 2], "p99": times[int(0.99 * (len(times) - 1))]}
        for name, times in {"cold": cold, "warm": warm}.items()
    }
    result["rounds"] = rates
    result["arguments"] = {key: str(value) for key, value in vars(args).items()}
    result |= engine_machine()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--base", type=Path, help="model folder instead of a random one")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--vocabulary", type=int, default=4096)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--slots", type=int, default=2000, help="slots, and distinct adapters")
    parser.add_argument("--requests", type=int, default=64, help="in one batch")
    parser.add_argument("--prompt", type=int, default=16, help="tokens of each prompt")
    parser.add_argument("--tokens", type=int, default=32, help="tokens generated per request")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--distinct-rounds", type=int, default=3)
    parser.add_argument("--cold", type=int, default=200, help="adapters for the first-token times")
    args = parser.parse_args()

    from rich.console import Console
    from rich.table import Table

    with tempfile.TemporaryDirectory() as folder:
        base = args.base or write_base(Path(folder) / "base", args)
        result = report(measure(base, args), args)
    write_json(args.json, result)
    table = Table(title=f"tokens/s, {args.requests} requests x {args.tokens} tokens")
    table.add_column("")
    for column in ("median", "least", "most", "ratio to base"):
        table.add_column(column, justify="right")
    for name, values in result["rounds"].items():
        numbers = [f"{value:,.0f}" for value in (result[name], min(values), max(values))]
        ratio = result["ratio"].get(name)
        table.add_row(name, *numbers, f"{ratio['median']:.3f}" if ratio else "")
    console = Console()
    console.print(table)
    for name, times in result["first_token_seconds"].items():
        console.print(f"first token, {name}: p50 {times['p50']:.4f} s, p99 {times['p99']:.4f} s")
    console.print(
        "ratio of rates, distinct adapters:", result["ratio"][f"distinct_{args.slots}_to_{FEW}"]
    )


if __name__ == "__main__":
    main()
