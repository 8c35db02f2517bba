"""Time and activation memory of a training step: Propulsion beside LoRA, (IA)³ and the bare base.

    python -m benchmarks.training_step --json runs/bench/training_step.json

A stack of LLaMA blocks with random weights, the same for all. The base is frozen everywhere, and
gradients flow through it to the stack's input. A step is forward, backward and, where there is
something to train, AdamW. All methods adapt the same layers and take turns, so each round measures
them side by side.

Fields of the JSON: `step_seconds` (median over rounds), `step_seconds_range` (least and most),
`step_ratio` (median over rounds of the ratio to the base in the same round, with its quartiles),
and `activation_bytes`, what autograd saves between forward and backward, parameters aside, each by
method.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import IA3Config, LoraConfig, get_peft_model
from transformers import LlamaModel

from benchmarks.llama import llama_config
from benchmarks.report import torch_machine, write_json
from propulsion import PropulsionConfig
from propulsion.presets import preset_targets

METHODS = ("base", "propulsion", "ia3", "lora")


def build(method: str, args: argparse.Namespace) -> torch.nn.Module:
    """The stack with one method's adapter on it."""
    torch.manual_seed(0)
    config = llama_config(args.layers, args.hidden, 32, use_cache=False)
    stack = LlamaModel(config).to(args.device, args.dtype).train()
    if method == "base":
        return stack.requires_grad_(False)
    targets = sorted(preset_targets(args.preset, "llama").target_modules)
    adapter = {
        "propulsion": lambda: PropulsionConfig(target_modules=targets),
        "ia3": lambda: IA3Config(target_modules=targets, feedforward_modules=[]),
        "lora": lambda: LoraConfig(r=8, target_modules=targets),
    }[method]()
    return get_peft_model(stack, adapter)


def make_step(model: torch.nn.Module, args: argparse.Namespace) -> Callable[[], None]:
    """One training step of `model`."""
    generator = torch.Generator().manual_seed(0)
    shape = (args.batch, args.tokens, args.hidden)
    inputs = torch.randn(shape, generator=generator).to(args.device, args.dtype).requires_grad_()
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=1e-4) if trainable else None

    def step() -> None:
        model(inputs_embeds=inputs).last_hidden_state.float().square().mean().backward()
        if optimizer is not None:
            optimizer.step()
            optimizer.zero_grad()
        inputs.grad = None
        if args.device == "cuda":
            torch.cuda.synchronize()

    return step


def activation_bytes(model: torch.nn.Module, step: Callable[[], None]) -> int:
    """Bytes of the distinct storages that autograd saves in a step, those of parameters aside."""
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    saved: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            # Keeping the storage alive keeps its address from being used again.
            saved[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        step()
    return sum(storage.nbytes() for storage in saved.values())


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """All methods in turns; see the module's docstring for the fields."""
    steps, memory = {}, {}
    for method in METHODS:
        model = build(method, args)
        steps[method] = make_step(model, args)
        memory[method] = activation_bytes(model, steps[method])
    for _ in range(args.warmup):
        for step in steps.values():
            step()
    seconds: dict[str, list[float]] = {method: [] for method in METHODS}
    for turn in range(args.rounds):
        # Another one goes first in every round, lest one always follow the same.
        first = turn % len(METHODS)
        for method in METHODS[first:] + METHODS[:first]:
            start = time.perf_counter()
            steps[method]()
            seconds[method].append(time.perf_counter() - start)
    ratios = {
        method: sorted(a / b for a, b in zip(times, seconds["base"], strict=True))
        for method, times in seconds.items()
    }
    return {
        "step_seconds": {m: statistics.median(times) for m, times in seconds.items()},
        "step_seconds_range": {m: [min(times), max(times)] for m, times in seconds.items()},
        "step_ratio": {
            m: {
                "median": statistics.median(values),
                "quartiles": [values[len(values) // 4], values[-1 - len(values) // 4]],
            }
            for m, values in ratios.items()
        },
        "activation_bytes": memory,
        "settings": {**{k: str(v) for k, v in vars(args).items() if k != "json"}},
        "machine": torch_machine(args.device),
    }


def print_table(result: dict[str, Any]) -> None:
    """One line a method."""
    print(f"{'method':<12}{'ms a step':>11}{'× base':>9}{'(quartiles)':>16}{'MiB saved':>11}")
    for method in METHODS:
        ratio = result["step_ratio"][method]
        low, high = ratio["quartiles"]
        print(
            f"{method:<12}{1e3 * result['step_seconds'][method]:>11.1f}{ratio['median']:>9.3f}"
            f"{f'{low:.3f}–{high:.3f}':>16}{result['activation_bytes'][method] / 2**20:>11.1f}"
        )


def main() -> None:
    """Parse the options, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, required=True, help="where the numbers go")
    parser.add_argument("--preset", default="all", choices=["attn", "mlp", "all"])
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    args.dtype = getattr(torch, args.dtype)
    result = measure(args)
    print_table(result)
    write_json(args.json, result)


if __name__ == "__main__":
    main()
