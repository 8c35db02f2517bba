"""The parts of the run, the most important first: each measures as long as there is time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from benchmarks.gpu import bandwidth, correctness, decoding, engine, resident
from benchmarks.gpu.budget import Budget
from benchmarks.gpu.decoder import Decoder
from benchmarks.gpu.shapes import LLAMA_7B, OTHER_MODELS, Shape
from benchmarks.gpu.tables import RESIDENT_ADAPTERS

Fields = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """What is run, on what.

    Attributes:
        device: "cuda" or "cpu".
        is_tiny: sizes that say nothing of speed.
        rounds: in which variants take turns.
    """

    device: str
    is_tiny: bool
    rounds: int

    @property
    def adapters(self) -> int:
        """Distinct ones in a batch, at the most."""
        return 4 if self.is_tiny else 256

    def sized(self, shape: Shape) -> Shape:
        """The shape, or its tiny likeness."""
        return shape.tiny() if self.is_tiny else shape


def check_kernels(settings: Settings, budget: Budget) -> Fields:
    """All kernels against their references."""
    sizes = (5, (64, 51)) if settings.is_tiny else (300,)
    rows = budget.run(
        "correctness",
        lambda: correctness.check_all(settings.device, *sizes),
        kind="correctness",
        expected_seconds=20,
    )
    return {"correctness": rows or []}


def measure_bandwidth(settings: Settings, budget: Budget) -> Fields:
    """LLaMA-7B's kernels at many sizes, the other models' at the largest."""
    sizes = (4,) if settings.is_tiny else (8192, 2048, 256, 64)
    wanted = [(LLAMA_7B, tokens) for tokens in sizes]
    wanted += [(shape, sizes[0]) for shape in OTHER_MODELS]
    rows = []
    for shape, tokens in wanted:
        measure = partial(
            bandwidth.measure,
            *(settings.sized(shape), settings.device, tokens, settings.adapters, settings.rounds),
        )
        name = f"bandwidth, {shape.model} at {tokens} tokens"
        rows += budget.run(name, measure, kind="bandwidth", expected_seconds=10) or []
        decoding.free_memory()
    return {"bandwidth": rows}


def measure_steps(settings: Settings, budget: Budget) -> Fields:
    """Whole steps and a layer of LLaMA-7B in all variants."""
    sizes = [(64, 512), (256, 128), (1, 512), (8, 512), (2048, 0)]
    if settings.is_tiny:
        sizes = [(64, 4), (1, 4), (8, 0)]
    return _steps_of(LLAMA_7B, sizes, settings, budget, is_brief=False)


def measure_other_models(settings: Settings, budget: Budget) -> Fields:
    """Whole steps of the other models, in the variants that the goals are about."""
    sizes = [(64, 4)] if settings.is_tiny else [(64, 512), (256, 128)]
    fields: Fields = {"fused_difference": {}, "decoding": []}
    for shape in OTHER_MODELS:
        merge(fields, _steps_of(shape, sizes, settings, budget, is_brief=True))
    return fields


def _steps_of(
    shape: Shape,
    sizes: list[tuple[int, int]],
    settings: Settings,
    budget: Budget,
    *,
    is_brief: bool,
) -> Fields:
    """Of one model, whose memory is given back."""
    fields = _measure_model(shape, sizes, settings, budget, is_brief=is_brief)
    decoding.free_memory()
    return fields


def _measure_model(
    shape: Shape,
    sizes: list[tuple[int, int]],
    settings: Settings,
    budget: Budget,
    *,
    is_brief: bool,
) -> Fields:
    adapters, rounds = settings.adapters, settings.rounds
    fields: Fields = {"fused_difference": {}, "decoding": []}
    decoder = budget.run(
        f"weights of {shape.model}",
        lambda: Decoder(settings.sized(shape), settings.device, torch.bfloat16),
        kind="weights",
        expected_seconds=5,
    )
    if decoder is None:
        return fields
    difference = budget.run(
        f"difference between fused and unfused, {shape.model}",
        lambda: decoding.largest_difference(decoder.resized(*sizes[0]), adapters),
        kind="difference",
        expected_seconds=5,
    )
    if difference is not None:
        fields["fused_difference"][shape.model] = difference
    measure = partial(decoding.measure, budget=budget, is_brief=is_brief)
    fields["decoding"] += measure(decoder, sizes, adapters, rounds, 3.0 if is_brief else 5.0)
    if not is_brief:
        fields["decoding"] += measure(decoder.one_layer(), sizes, adapters, rounds, 1.5)
    return fields


def fill_bank(settings: Settings, budget: Budget) -> Fields:
    """10,000 attention adapters of LLaMA-7B in the server's bank, in bf16 and in fp32."""
    rows = []
    for dtype in (torch.bfloat16, torch.float32):
        row = budget.run(
            f"bank of {dtype}",
            partial(
                resident.measure,
                settings.sized(LLAMA_7B),
                20 if settings.is_tiny else RESIDENT_ADAPTERS,
                settings.device,
                dtype,
            ),
            kind="bank",
            expected_seconds=10,
        )
        rows += [] if row is None else [row]
        decoding.free_memory()
    return {"bank": rows}


def measure_engine(settings: Settings, budget: Budget) -> Fields:
    """Whole vLLM engines, where vLLM is installed."""
    workload = engine.TINY if settings.is_tiny else engine.LARGE
    shape = settings.sized(LLAMA_7B)
    return {"engine": engine.measure(shape, settings.device, workload, budget)}


PARTS: dict[str, Callable[[Settings, Budget], Fields]] = {
    "correctness": check_kernels,
    "bandwidth": measure_bandwidth,
    "decoding": measure_steps,
    "bank": fill_bank,
    "models": measure_other_models,
    "engine": measure_engine,
}


def merge(fields: Fields, more: Fields) -> None:
    """Add rows to rows and entries to entries."""
    for name, value in more.items():
        if isinstance(value, list):
            fields[name] += value
        else:
            fields[name] |= value
