"""Times of one decoder layer and of whole steps, in all their variants."""

from __future__ import annotations

import gc
from dataclasses import replace
from typing import Any

import torch

from benchmarks.gpu.adapters import Unfused, make_bank, slots_of
from benchmarks.gpu.budget import Budget
from benchmarks.gpu.decoder import Decoder
from benchmarks.gpu.passes import Fused
from benchmarks.gpu.shapes import Shape
from benchmarks.gpu.timing import NOT_MEASURED, captured, rounds_of, spread
from benchmarks.gpu.variants import (
    BASE,
    COMPILED_BASE,
    Variants,
    make_banks,
    make_variants,
    names_of,
)

# Of a size beside its rounds: making LoRA's matrices, compiling, capturing.
OVERHEAD_SECONDS = 15.0


def measure(
    decoder: Decoder,
    sizes: list[tuple[int, int]],
    num_adapters: int,
    rounds: int,
    seconds_per_size: float,
    budget: Budget,
    *,
    is_brief: bool = False,
) -> list[dict[str, Any]]:
    """A row for each size and variant.

    Args:
        decoder: weights; its own number of tokens does not matter.
        sizes: tokens and context of each step, the most important first; a context of 0 is a
            prefill.
        num_adapters: distinct adapters at the most.
        rounds: of timing.
        seconds_per_size: about what the rounds of one size may take.
        budget: for all; a size that does not fit is left out.
        is_brief: only the variants that the goals are about.

    Returns:
        Rows with `variant`, `seconds` and `ratio_to_base` (of the same round, to the faster of the
        two bases), each with its quartiles, or "not measured" and why.
    """
    banks = make_banks(decoder, num_adapters)
    rows = []
    for tokens, context in sizes:
        shape = replace(decoder.shape, tokens=tokens, context=context)
        name = f"{shape.model}, {shape.layers} layers, {phase_of(shape)} of {tokens} tokens"

        def measure_size(tokens: int = tokens, context: int = context) -> list[dict[str, Any]]:
            sized = decoder.resized(tokens, context)
            variants = make_variants(sized, banks, num_adapters, is_brief=is_brief)
            missing = [_row(sized.shape, name, why) for name, why in variants.missing.items()]
            return _measure_size(sized, variants, rounds, seconds_per_size) + missing

        measured = budget.run(
            name,
            measure_size,
            kind=f"steps of {shape.model}, {shape.layers} layers",
            expected_seconds=seconds_per_size + OVERHEAD_SECONDS,
        )
        if measured is None:
            names = names_of(num_adapters, is_brief=is_brief)
            measured = [_row(shape, variant, budget.left_out[name]) for variant in names]
        rows += measured
        free_memory()
    return rows


def free_memory() -> None:
    """Give back what nothing refers to any more, captured graphs and compiled passes included."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
        # The compiler gives up on a function that it has compiled for too many shapes.
        torch.compiler.reset()


def phase_of(shape: Shape) -> str:
    """Decode or prefill."""
    return "decode" if shape.context else "prefill"


def _measure_size(
    decoder: Decoder, variants: Variants, rounds: int, seconds_per_size: float
) -> list[dict[str, Any]]:
    shape = decoder.shape
    if not decoder.inputs.is_cuda:
        for step in variants.steps.values():
            assert step().isfinite().all()
        return [_row(shape, name, variants.notes.get(name, "")) for name in variants.steps]
    replays, rows = {}, []
    for name, step in variants.steps.items():
        try:
            replays[name] = captured(step)
        except Exception as error:
            # One variant that cannot run must not take the others' numbers with it.
            if name == BASE:
                raise
            rows.append(_row(shape, name, f"{type(error).__name__}: {error}"))
    times = rounds_of(replays, rounds, seconds_per_size)
    bases = [times[name] for name in (BASE, COMPILED_BASE) if name in times]
    base = min(bases, key=lambda seconds: spread(seconds)["median"])
    for name, seconds in times.items():
        ratios = [mine / of_base for mine, of_base in zip(seconds, base, strict=True)]
        row = _row(shape, name, variants.notes.get(name, ""))
        rows.append({**row, "seconds": spread(seconds), "ratio_to_base": spread(ratios)})
    return rows


def largest_difference(decoder: Decoder, num_adapters: int) -> float:
    """Of one step's hidden states, between fused and unfused, in shares of the largest."""
    device = decoder.inputs.device.type
    bank = make_bank(decoder.shape, num_adapters, device)
    fused = Fused(slots_of(decoder.shape.tokens, num_adapters, device), bank)
    one, other = decoder.step(fused=fused).float(), decoder.step(applied=Unfused(fused)).float()
    return ((one - other).abs().max() / other.abs().max()).item()


def _row(shape: Shape, variant: str, note: str = "") -> dict[str, Any]:
    return {
        "model": shape.model,
        "layers": shape.layers,
        "tokens": shape.tokens,
        "phase": phase_of(shape),
        "variant": variant,
        "seconds": NOT_MEASURED,
        "ratio_to_base": NOT_MEASURED,
        "note": note,
    }
