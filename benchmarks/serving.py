"""Throughput of vLLM without adapters, and with the plug-in at 0, 1 and many adapters.

    python -m benchmarks.serving --json runs/bench/serving.json

Two engines run in processes of their own and take turns, so each round measures all side by side.
Fields of the JSON: tokens per second, as `median`, `min` and `max` over the rounds, and `ratio` of
the medians to `base`.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

BASE = Path(__file__).parents[1] / "examples" / "tiny_base" / "model"


def publish_random_adapters(base: Path, store: Path, count: int) -> list[str]:
    """Adapters with random offsets on all linear layers; their references."""
    import torch
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    from adapters import AdapterStore, base_fingerprint
    from propulsion import PropulsionConfig

    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base),
        PropulsionConfig(preset="all", task_type="CAUSAL_LM"),
    )
    fingerprint = base_fingerprint(base)
    references = []
    for seed in range(count):
        generator = torch.Generator().manual_seed(seed)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = torch.randn(parameter.shape, generator=generator) * 1e-3
        folder = store.parent / "adapter"
        model.save_pretrained(folder)
        version = AdapterStore(store).publish(
            folder, f"random-{seed}", base_fingerprint=fingerprint
        )
        references.append(version.reference)
    return references


def engine_process(pipe: Connection, base: str, store: str | None, args: Any) -> None:
    """One engine; takes lists of references ("" is the base) and answers tokens per second."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    from vllm import LLM, SamplingParams

    options: dict[str, Any] = {
        "dtype": "bfloat16",
        "enforce_eager": True,
        "max_num_seqs": args.requests,
        "disable_log_stats": True,
        "enable_prefix_caching": False,
    }
    if store is None:
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
        llm = LLM(model=base, **options)
    else:
        from serving.engine import engine_options

        llm = LLM(**engine_options(base, max_adapters=args.adapters, **options))
    sampling = SamplingParams(temperature=0.0, max_tokens=args.tokens, ignore_eos=True)
    prompts = [{"prompt_token_ids": [1, *range(10, 10 + args.prompt)]}] * args.requests
    pipe.send("ready")
    while (references := pipe.recv()) is not None:
        requests: Any = None
        if store is not None:
            from adapters import AdapterStore
            from serving.engine import adapter_request

            versions = {r: AdapterStore(store).resolve(r) for r in set(references) if r}
            requests = [adapter_request(versions[r]) if r else None for r in references]
        start = time.perf_counter()
        llm.generate(prompts, sampling, lora_request=requests, use_tqdm=False)
        pipe.send(args.requests * args.tokens / (time.perf_counter() - start))


def measure(base: Path, args: Any) -> dict[str, list[float]]:
    """Tokens per second of every round, by what was measured."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        references = publish_random_adapters(base, store, args.adapters)
        context = multiprocessing.get_context("spawn")
        pipes: dict[bool, Connection] = {}
        for plugin in (False, True):
            pipes[plugin], theirs = context.Pipe()
            context.Process(
                target=engine_process,
                args=(theirs, str(base), str(store) if plugin else None, args),
                daemon=True,
            ).start()
            pipes[plugin].recv()
        workloads: dict[str, tuple[bool, Sequence[str]]] = {
            "base": (False, [""] * args.requests),
            "plugin_idle": (True, [""] * args.requests),
            "plugin_1": (True, [references[0]] * args.requests),
            f"plugin_{args.adapters}": (
                True,
                [references[i % len(references)] for i in range(args.requests)],
            ),
        }
        rates: dict[str, list[float]] = {name: [] for name in workloads}
        for turn in range(args.rounds + 1):
            for name, (plugin, wanted) in workloads.items():
                pipes[plugin].send(list(wanted))
                rate = pipes[plugin].recv()
                # The first turn warms up and loads the adapters.
                if turn:
                    rates[name].append(rate)
        for pipe in pipes.values():
            pipe.send(None)
        return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--base", type=Path, default=BASE)
    parser.add_argument("--adapters", type=int, default=64)
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--prompt", type=int, default=16, help="tokens of each prompt")
    parser.add_argument("--tokens", type=int, default=32, help="tokens generated per request")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()

    import torch
    import vllm
    from rich.console import Console
    from rich.table import Table

    rates = measure(args.base, args)
    baseline = statistics.median(rates["base"])
    results = {
        name: {
            "median": statistics.median(values),
            "min": min(values),
            "max": max(values),
            "ratio": statistics.median(values) / baseline,
        }
        for name, values in rates.items()
    }
    report = {
        "tokens_per_second": results,
        "rounds": args.rounds,
        "arguments": {key: str(value) for key, value in vars(args).items()},
        "machine": {"cpus": os.cpu_count(), "processor": platform.machine()},
        "versions": {"vllm": vllm.__version__, "torch": torch.__version__},
    }
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(report, indent=1) + "\n")
    table = Table(title=f"tokens/s, {args.requests} requests x {args.tokens} tokens")
    table.add_column("")
    for column in ("median", "min", "max", "ratio to base"):
        table.add_column(column, justify="right")
    for name, row in results.items():
        numbers = [f"{row[key]:,.0f}" for key in ("median", "min", "max")]
        table.add_row(name, *numbers, f"{row['ratio']:.3f}")
    Console().print(table)


if __name__ == "__main__":
    main()
