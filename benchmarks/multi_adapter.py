"""Adapters trained together over one base, against one after another.

    python -m benchmarks.multi_adapter --json runs/bench/multi_adapter.json

A LLaMA with random weights, and N adapters that each want a few records a step. "Together" trains
them in one engine, each step one pass of the base for all; "one after another" trains each by
itself, on the same data and for as many steps. Both use the trainer's own step, on DeepSpeed. They
take turns for some rounds; only steps are timed, not the building of engines.

Memory is what a process holds beyond the base at the height of a step: weights, gradients,
optimiser and activations. It is measured in a process of its own for each N.

Fields of the JSON: `speedup_N` (median over rounds of the ratio of times, for N = 1, 2, 4, 8),
`speedup_range_N` (least and most), `step_seconds` (median of a step together, by N, and alone),
`largest_weight_difference` (between the final weights of both ways), `memory_growth_per_adapter`
(slope over N, as a share of the base's bytes), `memory_bytes` (by N).
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaForCausalLM

from benchmarks.llama import llama_config
from benchmarks.report import torch_machine, write_json
from trainer import optimizer_state
from trainer.adapted import AdaptedModel
from trainer.checkpoint import Trained
from trainer.config import RunConfig
from trainer.config.task import AnswerTask
from trainer.engine import start_engine, stop_engine
from trainer.ranks import join_ranks
from trainer.schedule import learning_rate
from trainer.tasks.answer import Answering
from trainer.tasks.task import IGNORED, EncodedRecord
from trainer.train_step import Passes, TrainStep

COUNTS = (1, 2, 4, 8)


class PadOnly:
    """The one thing of a tokenizer that a step needs: the records here are random tokens."""

    pad_token_id = 0
    eos_token_id = 1


def build_base(args: argparse.Namespace) -> LlamaForCausalLM:
    """The frozen model, the same each time."""
    torch.manual_seed(0)
    config = llama_config(args.layers, args.hidden, args.vocabulary)
    return LlamaForCausalLM(config).to(args.device, args.dtype)


def run_of(jobs: list[int], args: argparse.Namespace) -> RunConfig:
    """A run of the adapters with these numbers; they differ in degree, rate and data."""
    data = {"train": "none", "test": "none", "records": {"format": "gsm8k"}}
    return RunConfig.model_validate(
        {
            "name": "benchmark",
            "base": "random",
            "output_dir": "none",
            "deepspeed": {"stage": args.stage},
            "jobs": [
                {
                    "name": f"adapter{job}",
                    "seed": job,
                    "adapter": {"preset": args.preset, "degree": 5 + 2 * job},
                    "data": data,
                    "training": {
                        "steps": args.steps,
                        "batch_size": args.records,
                        "lr": 1e-3 / (1 + job),
                    },
                }
                for job in jobs
            ],
        }
    )


def records_of(job: int, step: int, args: argparse.Namespace) -> list[EncodedRecord]:
    """What an adapter trains on in a step: random tokens, the first of which bears no loss."""
    generator = torch.Generator().manual_seed(1_000_003 * job + step)
    shape = (args.records, args.tokens)
    rows = torch.randint(2, args.vocabulary, shape, generator=generator).tolist()
    return [EncodedRecord(tuple(ids), (IGNORED, *ids[1:]), len(ids) - 1) for ids in rows]


class Training:
    """The adapters with these numbers, ready to be trained together."""

    def __init__(self, jobs: list[int], args: argparse.Namespace) -> None:
        self._jobs, self._args = jobs, args
        self._run = run_of(jobs, args)
        base = build_base(args)
        if args.checkpointing:
            base.gradient_checkpointing_enable(
                gradient_checkpointing_kwargs={"use_reentrant": False}
            )
        adapted = AdaptedModel(base, self._run, "CAUSAL_LM")
        settings = {
            name: job.training for name, job in zip(adapted.names, self._run.jobs, strict=True)
        }
        engine, optimizer = start_engine(
            adapted.model, adapted.parameters, settings, self._run.deepspeed
        )
        self._trained = Trained(engine, optimizer, adapted)
        task = Answering(AnswerTask(), PadOnly(), args.tokens)
        self._step = TrainStep(engine, optimizer, adapted, task, Passes(0, 1, None, None))

    def step(self, step: int) -> float:
        """Seconds of one step."""
        rows = {i: records_of(job, step, self._args) for i, job in enumerate(self._jobs)}
        rates = {i: learning_rate(job.training, step) for i, job in enumerate(self._run.jobs)}
        start = time.perf_counter()
        self._step(rows, rates, 0)
        if self._args.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    def weights(self, index: int) -> list[torch.Tensor]:
        """What an adapter has learned."""
        adapted = self._trained.adapted
        parameters = adapted.parameters[adapted.names[index]]
        return list(optimizer_state.full_weights(self._trained.engine, parameters).values())

    def close(self) -> None:
        """Let go of the engine."""
        stop_engine(self._trained.engine)


def train_all(jobs: list[int], args: argparse.Namespace) -> tuple[list[float], list[Any]]:
    """Seconds of each step, the first aside, which warms up; and the weights of each adapter."""
    training = Training(jobs, args)
    seconds = [training.step(step) for step in range(args.steps)]
    weights = [training.weights(index) for index in range(len(jobs))]
    training.close()
    del training
    gc.collect()
    return seconds[1:], weights


def measure_speed(args: argparse.Namespace) -> dict[str, Any]:
    """Rounds of both ways in turns."""
    speedups: dict[int, list[float]] = {count: [] for count in COUNTS}
    steps: dict[str, list[float]] = {}
    difference = 0.0
    for _ in range(args.rounds):
        alone = [train_all([job], args) for job in range(max(COUNTS))]
        steps.setdefault("alone", []).extend(s for seconds, _ in alone for s in seconds)
        for count in COUNTS:
            seconds, weights = train_all(list(range(count)), args)
            steps.setdefault(str(count), []).extend(seconds)
            one_after_another = sum(sum(one) for one, _ in alone[:count])
            speedups[count].append(one_after_another / sum(seconds))
            for job in range(count):
                for one, other in zip(weights[job], alone[job][1][0], strict=True):
                    difference = max(difference, (one - other).abs().max().item())
    return {
        **{f"speedup_{n}": statistics.median(values) for n, values in speedups.items()},
        **{f"speedup_range_{n}": [min(v), max(v)] for n, v in speedups.items()},
        "step_seconds": {name: statistics.median(values) for name, values in steps.items()},
        "largest_weight_difference": difference,
    }


def measure_memory(args: argparse.Namespace) -> dict[str, Any]:
    """A process for each number of adapters."""
    held: dict[int, int] = {}
    base = 0
    for count in COUNTS:
        command = [sys.executable, "-m", "benchmarks.multi_adapter", *sys.argv[1:]]
        done = subprocess.run(
            [*command, "--memory-of", str(count)],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                # Freed memory goes back at once, so that what is resident is what is held.
                "MALLOC_TRIM_THRESHOLD_": "0",
                "MALLOC_MMAP_THRESHOLD_": "65536",
            },
        )
        report = json.loads(done.stdout.splitlines()[-1])
        held[count], base = report["held"], report["base"]
    slope = statistics.linear_regression(list(held), list(held.values())).slope
    return {
        "memory_growth_per_adapter": slope / base,
        "memory_bytes": held,
        "base_bytes": base,
    }


def report_memory(count: int, args: argparse.Namespace) -> None:
    """Bytes that this process comes to hold at the height of a step; printed as JSON."""
    training = Training(list(range(count)), args)
    base = sum(
        p.numel() * p.element_size()
        for p in training._trained.adapted.model.parameters()
        if not p.requires_grad
    )
    if args.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        for step in range(3):
            training.step(step)
        held = torch.cuda.max_memory_allocated()
    else:
        with _PeakOfProcess() as peak:
            for step in range(3):
                training.step(step)
        held = peak.bytes
    print(json.dumps({"held": held, "base": base}))


class _PeakOfProcess:
    """Most anonymous memory of this process while the block runs, sampled each millisecond."""

    def __init__(self) -> None:
        self.bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> _PeakOfProcess:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.001):
            lines = Path("/proc/self/status").read_text().splitlines()
            (line,) = (line for line in lines if line.startswith("RssAnon"))
            self.bytes = max(self.bytes, 1024 * int(line.split()[1]))


def print_table(result: dict[str, Any]) -> None:
    """One line for each number of adapters."""
    print(f"{'adapters':>8}{'× faster':>10}{'(range)':>14}{'ms a step':>11}{'MiB held':>10}")
    print(f"{'alone':>8}{'':>24}{1e3 * result['step_seconds']['alone']:>11.1f}")
    for count in COUNTS:
        low, high = result[f"speedup_range_{count}"]
        held = result["memory_bytes"][count] / 2**20
        print(
            f"{count:>8}{result[f'speedup_{count}']:>10.2f}{f'{low:.2f}–{high:.2f}':>14}"
            f"{1e3 * result['step_seconds'][str(count)]:>11.1f}{held:>10.1f}"
        )
    print(f"memory of one more adapter: {result['memory_growth_per_adapter']:.3%} of the base")
    print(f"largest difference of final weights: {result['largest_weight_difference']:.1e}")


def main() -> None:
    """Parse the options, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, required=True, help="where the numbers go")
    parser.add_argument("--preset", default="all", choices=["attn", "mlp", "all"])
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--vocabulary", type=int, default=8000)
    parser.add_argument("--records", type=int, default=1, help="of each adapter in a step")
    parser.add_argument("--tokens", type=int, default=8, help="of each record")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--stage", type=int, default=2, help="of ZeRO")
    parser.add_argument(
        "--no-checkpointing",
        dest="checkpointing",
        action="store_false",
        help="keep all activations, which a large base seldom can",
    )
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.dtype = getattr(torch, args.dtype)
    if args.memory_of is not None:
        join_ranks()
        report_memory(args.memory_of, args)
        return
    # First, since ranks are told to child processes too.
    memory = measure_memory(args)
    join_ranks()
    result = {**measure_speed(args), **memory}
    result["settings"] = {
        k: str(v) for k, v in vars(args).items() if k not in ("json", "memory_of")
    }
    result["machine"] = torch_machine(args.device)
    print_table(result)
    write_json(args.json, result)


if __name__ == "__main__":
    main()
