"""A LLaMA-7B-shaped training run: Propulsion beside LoRA, memory and tokens per second.

    python -m benchmarks.gpu.training --json runs/bench/gpu_training.json

The base has random weights in bf16 and is frozen; activations are checkpointed. Each method gets a
copy of the base of its own, and they take turns, so that each round measures them side by side.
With `--adapters N` Propulsion also trains N adapters at once, the batch divided among them.

Fields of the JSON, each by method: `tokens_per_second` (median over rounds, with its range),
`ratio_to_lora` (median over rounds of the ratio in the same round, with its range), `peak_bytes`
(`torch.cuda.max_memory_allocated` of a step, null without a GPU), `trainable_parameters`, `losses`.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.report import write_json
from propulsion import PropulsionConfig
from propulsion.batch_context import mixed_forward
from propulsion.mixed_batch import MixedBatch
from propulsion.presets import preset_targets


def build(method: str, args: argparse.Namespace) -> torch.nn.Module:
    """A frozen base with one method's adapters on it, made on the device."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=args.vocabulary,
        hidden_size=args.hidden,
        intermediate_size=args.intermediate,
        num_hidden_layers=args.layers,
        num_attention_heads=args.hidden // args.head,
        use_cache=False,
    )
    before = torch.get_default_dtype()
    torch.set_default_dtype(args.dtype)
    try:
        with torch.device(args.device):
            base = LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    targets = sorted(preset_targets(args.preset, "llama").target_modules)
    if method == "lora":
        return get_peft_model(base, LoraConfig(r=8, target_modules=targets)).train()
    config_of = PropulsionConfig(target_modules=targets, degree=15)
    model = get_peft_model(base, config_of, adapter_name="job0")
    for job in range(1, jobs_of(method, args)):
        model.add_adapter(f"job{job}", config_of)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("propulsion_delta" in name)
    return model.train()


def jobs_of(method: str, args: argparse.Namespace) -> int:
    """How many adapters a method trains at once."""
    return args.adapters if method == "propulsion_mixed" else 1


def make_step(
    method: str, model: Any, args: argparse.Namespace
) -> Callable[[], tuple[float, float]]:
    """One training step; returns its seconds and its loss."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(args.vocabulary, (args.batch, args.tokens), generator=generator)
    ids = ids.to(args.device)
    jobs = jobs_of(method, args)
    names = [f"job{row * jobs // args.batch}" for row in range(args.batch)]

    def step() -> tuple[float, float]:
        synchronize(args.device)
        start = time.perf_counter()
        mixed: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        if jobs > 1:
            mixed = mixed_forward(model.base_model.model, MixedBatch(names, ids.device))
        with mixed:
            loss = model(input_ids=ids, labels=ids).loss
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        synchronize(args.device)
        return time.perf_counter() - start, loss.item()

    return step


def synchronize(device: str) -> None:
    """Wait for the GPU, if there is one."""
    if device == "cuda":
        torch.cuda.synchronize()


def peak_bytes(step: Callable[[], Any], device: str) -> int | None:
    """Of one step, the model's weights included, the other methods' excluded."""
    if device != "cuda":
        step()
        return None
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    step()
    return torch.cuda.max_memory_allocated()


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Memory of each method alone, then all of them in turns."""
    methods = ["lora", "propulsion"] + ["propulsion_mixed"] * (args.adapters > 1)
    memory: dict[str, int | None] = {}
    trainable = {}
    for method in methods:
        model = build(method, args)
        trainable[method] = sum(p.numel() for p in model.parameters() if p.requires_grad)
        memory[method] = peak_bytes(make_step(method, model, args), args.device)
        del model
    steps = {method: make_step(method, build(method, args), args) for method in methods}
    for _ in range(args.warmup):
        for step in steps.values():
            step()
    speeds: dict[str, list[float]] = {method: [] for method in methods}
    losses: dict[str, list[float]] = {method: [] for method in methods}
    for turn in range(args.rounds):
        first = turn % len(methods)
        for method in methods[first:] + methods[:first]:
            seconds, loss = steps[method]()
            speeds[method].append(args.batch * args.tokens / seconds)
            losses[method].append(loss)
    ratios = {
        method: [one / other for one, other in zip(values, speeds["lora"], strict=True)]
        for method, values in speeds.items()
    }
    return {
        "tokens_per_second": {m: _spread(values) for m, values in speeds.items()},
        "ratio_to_lora": {m: _spread(values) for m, values in ratios.items()},
        "peak_bytes": memory,
        "trainable_parameters": trainable,
        "losses": losses,
        "settings": {k: str(v) for k, v in vars(args).items() if k != "json"},
        "machine": {
            "torch": torch.__version__,
            "gpu": torch.cuda.get_device_name() if args.device == "cuda" else None,
        },
    }


def _spread(values: list[float]) -> dict[str, Any]:
    return {"median": statistics.median(values), "range": [min(values), max(values)]}


def print_table(result: dict[str, Any]) -> None:
    """One line a method."""
    print(f"{'method':<18}{'tokens/s':>10}{'× LoRA':>8}{'(range)':>14}{'GiB':>8}{'trained':>13}")
    for method, speed in result["tokens_per_second"].items():
        ratio, peak = result["ratio_to_lora"][method], result["peak_bytes"][method]
        low, high = ratio["range"]
        print(
            f"{method:<18}{speed['median']:>10,.0f}{ratio['median']:>8.3f}"
            f"{f'{low:.3f}–{high:.3f}':>14}{'' if peak is None else f'{peak / 2**30:.2f}':>8}"
            f"{result['trainable_parameters'][method]:>13,}"
        )


def main() -> None:
    """Parse the options, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, required=True, help="where the numbers go")
    parser.add_argument("--preset", default="all", choices=["attn", "mlp", "all"])
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--hidden", type=int, default=4096)
    parser.add_argument("--intermediate", type=int, default=11008)
    parser.add_argument("--head", type=int, default=128)
    parser.add_argument("--vocabulary", type=int, default=32000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--adapters", type=int, default=8, help="trained at once; 1 for none")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--dtype", default="bfloat16", choices=["float32", "bfloat16"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    args.dtype = getattr(torch, args.dtype)
    result = measure(args)
    print_table(result)
    write_json(args.json, result)


if __name__ == "__main__":
    main()
