"""What adapters cost a whole vLLM engine: its tokens per second with them beside those without.

The engine without adapters runs all the time; the others run one at a time beside it, so that each
round measures both. The first two start together. Weights are vLLM's dummies, so nothing is read
but a configuration.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from benchmarks.adapter_files import LORA_RANK, write_adapters
from benchmarks.engines import Engine, EngineSpec
from benchmarks.gpu.budget import Budget
from benchmarks.gpu.shapes import Shape
from benchmarks.gpu.timing import NOT_MEASURED, spread

BASE = "without adapters"
KV_BLOCK = 16
# Of a tiny model's cache: on a CPU blocks are larger.
LEAST_CACHE_BYTES = 2**26
# Beside weights, cache and adapters: activations, captured graphs, CUDA's own.
SPARE_BYTES = 4 * 2**30
# Two engines' start, which includes compiling, and the rounds.
ENGINE_SECONDS = 100.0


@dataclass(frozen=True)
class Workload:
    """One batch, in which each request has an adapter of its own.

    Attributes:
        adapters: and requests.
        prompt: tokens of each prompt.
        tokens: generated for each request.
        rounds: in which two engines take turns.
        vocabulary: of the model.
        is_eager: without CUDA graphs and torch.compile.
    """

    adapters: int
    prompt: int
    tokens: int
    rounds: int
    vocabulary: int
    is_eager: bool

    def cache_bytes(self, shape: Shape) -> int:
        """Of keys and values in 16 bits of all requests."""
        blocks = -(-(self.prompt + self.tokens) // KV_BLOCK) + 1
        needed = self.adapters * blocks * KV_BLOCK * 4 * shape.layers * shape.hidden
        return max(needed, LEAST_CACHE_BYTES)


LARGE = Workload(adapters=256, prompt=16, tokens=48, rounds=5, vocabulary=32000, is_eager=False)
TINY = Workload(adapters=4, prompt=4, tokens=4, rounds=2, vocabulary=128, is_eager=True)


@dataclass(frozen=True)
class Contender:
    """An engine with adapters, and the batches it is given, by what they are called in the rows."""

    method: Literal["propulsion", "lora"]
    options: dict[str, Any]
    batches: dict[str, list[Path | None]] = field(default_factory=dict)


def measure(shape: Shape, device: str, workload: Workload, budget: Budget) -> list[dict[str, Any]]:
    """A row for each engine and batch.

    Args:
        shape: of a LLaMA.
        device: "cuda" or "cpu".
        workload: what all engines are given.
        budget: for all; an engine that does not fit is left out.

    Returns:
        Rows with `variant`, `tokens_per_second` and `ratio_to_base` (of the same round), each with
        its quartiles, or "not measured" and why; `is_judged` where a goal is about it.
    """
    rows = None
    if (why := _why_not()) is not None:
        budget.left_out["engines"] = why
    else:
        rows = budget.run(
            "engines",
            lambda: _measure(shape, device, workload, budget),
            kind="engines",
            expected_seconds=ENGINE_SECONDS,
        )
    if rows is None:
        return [
            _row(f"our plug-in, {workload.adapters} adapters", budget.left_out["engines"], True)
        ]
    return rows


def _why_not() -> str | None:
    """What keeps engines from being measured here, if anything does."""
    try:
        import peft  # noqa: F401
        import vllm  # noqa: F401
    except ImportError as error:
        return f"vLLM does not import: {error}"
    return None


def _measure(shape: Shape, device: str, workload: Workload, budget: Budget) -> list[dict[str, Any]]:
    options = vllm_options(shape, workload)
    rows: list[dict[str, Any]] = []
    base_rates: list[float] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        base = write_config(folder / "base", shape, workload.vocabulary)
        contenders = make_contenders(shape, device, workload, base)
        alone = stack.enter_context(Engine(EngineSpec("base", base, workload.prompt, options)))
        for contender in contenders:
            *_, name = contender.batches
            spec = EngineSpec(contender.method, base, workload.prompt, options | contender.options)
            measure_contender = partial(
                rates_beside, alone, spec, contender.batches, workload, budget
            )
            rates = budget.run(
                f"engine: {name}", measure_contender, kind="engine", expected_seconds=ENGINE_SECONDS
            )
            rows += rows_of(contender, rates, device, budget.left_out.get(f"engine: {name}", ""))
            base_rates += (rates or {}).get(BASE, [])
    first = _row(BASE)
    if base_rates and device == "cuda":
        first["tokens_per_second"] = spread(base_rates)
    return [first, *rows]


def make_contenders(shape: Shape, device: str, workload: Workload, base: Path) -> list[Contender]:
    """Our plug-in with a bank in fp32 and in bf16, and vLLM's LoRA with as many as fit."""
    folder, count = base.parent, workload.adapters
    # Where weights come from matters to loading alone, which is not what is timed.
    ours = write_adapters(folder, base, count, "propulsion", num_files=4)
    num_loras = loras_that_fit(shape, device, workload)
    loras = write_adapters(folder, base, num_loras, "lora", num_files=1)
    plugin = f"our plug-in, {count} adapters"
    spread_loras = [loras[request % num_loras] for request in range(count)]
    return [
        Contender(
            "propulsion",
            {"max_adapters": count},
            {"our plug-in, no adapter used": [None] * count, plugin: list(ours)},
        ),
        Contender(
            "propulsion",
            {"max_adapters": count, "bank_dtype": "bfloat16"},
            {f"{plugin}, bf16 bank": list(ours)},
        ),
        Contender(
            "lora",
            {"enable_lora": True, "max_loras": num_loras, "max_lora_rank": LORA_RANK},
            {f"vLLM's LoRA r={LORA_RANK}, {num_loras} adapters": list(spread_loras)},
        ),
    ]


def rates_beside(
    alone: Engine,
    spec: EngineSpec,
    batches: dict[str, list[Path | None]],
    workload: Workload,
    budget: Budget,
) -> dict[str, list[float]]:
    """Tokens per second in each round, of the engine without adapters and of each batch."""

    def rate_of(engine: Engine, folders: list[Path | None]) -> float:
        return engine.rate(folders, workload.tokens, max(budget.seconds_left, 1))

    with Engine(spec) as engine:
        for starting in (alone, engine):
            starting.wait_until_ready(max(budget.seconds_left, 1))
        turns = {BASE: (alone, [None] * workload.adapters)}
        turns |= {name: (engine, folders) for name, folders in batches.items()}
        rates: dict[str, list[float]] = {name: [] for name in turns}
        names = list(turns)
        # The first two turns load adapters and warm up.
        for turn in range(-2, workload.rounds):
            start = time.monotonic()
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                rate = rate_of(*turns[name])
                if turn >= 0:
                    rates[name].append(rate)
            if turn > 0 and budget.seconds_left < 2 * (time.monotonic() - start):
                break
    return rates


def rows_of(
    contender: Contender, rates: dict[str, list[float]] | None, device: str, why: str
) -> list[dict[str, Any]]:
    """A row for each batch; without a GPU, or without rates, nothing in it is measured."""
    rows = []
    for name, folders in contender.batches.items():
        is_judged = contender.method == "propulsion" and folders[0] is not None
        row = _row(name, why, is_judged)
        if rates is not None and device == "cuda":
            pairs = zip(rates[name], rates[BASE], strict=True)
            row["tokens_per_second"] = spread(rates[name])
            row["ratio_to_base"] = spread([mine / of_base for mine, of_base in pairs])
        rows.append(row)
    return rows


def vllm_options(shape: Shape, workload: Workload) -> dict[str, Any]:
    """What all engines have in common."""
    options: dict[str, Any] = {
        "dtype": "bfloat16",
        "load_format": "dummy",
        "max_num_seqs": workload.adapters,
        "max_model_len": workload.prompt + workload.tokens,
        "kv_cache_memory_bytes": workload.cache_bytes(shape),
        # Said above; this share only has to be free at the start, and other engines run beside.
        "gpu_memory_utilization": 0.1,
        "disable_log_stats": True,
        "enable_prefix_caching": False,
        "skip_tokenizer_init": True,
        "enforce_eager": workload.is_eager,
    }
    if not workload.is_eager:
        # Requests are equally long, so that decode steps always have all of them.
        options["compilation_config"] = {"cudagraph_capture_sizes": [1, workload.adapters]}
    return options


def write_config(folder: Path, shape: Shape, vocabulary: int) -> Path:
    """The configuration of a LLaMA of that shape, all that dummy weights need."""
    from transformers import LlamaConfig

    LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        architectures=["LlamaForCausalLM"],
    ).save_pretrained(folder)
    return folder


def loras_that_fit(shape: Shape, device: str, workload: Workload) -> int:
    """Beside the engine without adapters: at the most one for each request, and at least one."""
    if device == "cpu":
        return workload.adapters
    linears = shape.projections.values()
    matrices = shape.layers * sum(linear.inputs * linear.width for linear in linears)
    weights = 2 * (matrices + 2 * workload.vocabulary * shape.hidden)
    lora = (
        2
        * LORA_RANK
        * shape.layers
        * sum(linear.parts * linear.inputs + linear.width for linear in linears)
    )
    free, _ = torch.cuda.mem_get_info()
    left = free - 2 * (weights + workload.cache_bytes(shape) + SPARE_BYTES)
    return max(1, min(workload.adapters, left // lora))


def _row(variant: str, note: str = "", is_judged: bool = False) -> dict[str, Any]:
    return {
        "variant": variant,
        "tokens_per_second": NOT_MEASURED,
        "ratio_to_base": NOT_MEASURED,
        "is_judged": is_judged,
        "note": note,
    }
