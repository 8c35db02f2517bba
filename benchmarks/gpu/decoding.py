"""One decoder layer and a whole step: the base, Propulsion unfused and fused, and LoRA."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from benchmarks.gpu.adapters import GroupedLora, Unfused, make_bank, slots_of
from benchmarks.gpu.decoder import Applied, Decoder, Fused, Shape
from benchmarks.gpu.plain import compiled
from benchmarks.gpu.punica import PunicaLora
from benchmarks.gpu.timing import NOT_MEASURED, captured, rounds_of, spread

RANKS = (8, 16)

Step = Callable[[], torch.Tensor]


def measure(
    decoder: Decoder,
    sizes: list[tuple[int, int]],
    num_adapters: int,
    rounds: int,
    budget_seconds: float,
) -> list[dict[str, Any]]:
    """A row for each size and variant.

    Args:
        decoder: weights; its own number of tokens does not matter.
        sizes: tokens and context of each step; a context of 0 is a prefill.
        num_adapters: distinct adapters at the most.
        rounds: of timing.
        budget_seconds: about what the rounds of one size may take.

    Returns:
        Rows with `variant`, `seconds` and `ratio_to_base` (of the same round, to the faster of the
        two bases), each with its quartiles, or "not measured" and why.
    """
    device = decoder.inputs.device.type
    banks = {
        name: make_bank(decoder.shape, num_adapters, device, dtype)
        for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))
    }
    rows = []
    for tokens, context in sizes:
        sized = decoder.resized(tokens, context)
        steps, missing, notes = _variants(sized, banks, num_adapters)
        rows += _measure_size(sized, steps, rounds, budget_seconds, notes)
        rows += [_row(sized.shape, name, note=why) for name, why in missing.items()]
        del sized, steps
        gc.collect()
        if device == "cuda":
            torch.cuda.empty_cache()
    return rows


def _variants(
    decoder: Decoder, banks: dict[str, dict[str, list[torch.Tensor]]], num_adapters: int
) -> tuple[dict[str, Step], dict[str, str], dict[str, str]]:
    """Steps by name, what could not be made and why, and notes on what was."""
    device, tokens = decoder.inputs.device.type, decoder.shape.tokens
    one = Fused(slots_of(tokens, 1, device), banks["fp32"])
    many = Fused(slots_of(tokens, num_adapters, device), banks["fp32"])
    narrow = Fused(many.slots, banks["bf16"])
    steps: dict[str, Step] = {
        "base": decoder.step,
        "propulsion unfused": lambda: decoder.step(applied=Unfused(many)),
        "propulsion fused, 1 adapter": lambda: decoder.step(fused=one),
        f"propulsion fused, {num_adapters} adapters": lambda: decoder.step(fused=many),
        f"propulsion fused, {num_adapters} adapters, bf16 bank": lambda: decoder.step(fused=narrow),
    }
    missing, notes = {}, {}
    if device == "cuda":
        plain = compiled()
        steps["base, torch.compile"] = lambda: decoder.step(plain=plain)
    else:
        missing["base, torch.compile"] = "needs a GPU"
    for rank in RANKS:
        name = f"LoRA r={rank}, {num_adapters} adapters"
        try:
            lora, notes[name] = _lora(decoder, rank, num_adapters)
        except torch.OutOfMemoryError:
            missing[name] = "the matrices of all adapters do not fit in memory"
            continue
        steps[name] = lambda lora=lora: decoder.step(applied=lora)
    return steps, missing, notes


def _lora(decoder: Decoder, rank: int, num_adapters: int) -> tuple[Applied, str]:
    used = min(decoder.shape.tokens, num_adapters)
    arguments = (decoder.shape, rank, used, decoder.inputs.device.type, decoder.inputs.dtype)
    if decoder.inputs.is_cuda:
        try:
            lora = PunicaLora(*arguments)
            decoder.step(applied=lora)
            return lora, "Punica's kernels"
        except (ImportError, TypeError, AttributeError) as error:
            return GroupedLora(*arguments), f"torch, grouped (Punica: {error})"
    return GroupedLora(*arguments), "torch, grouped"


def _measure_size(
    decoder: Decoder,
    steps: dict[str, Step],
    rounds: int,
    budget_seconds: float,
    notes: dict[str, str],
) -> list[dict[str, Any]]:
    shape = decoder.shape
    if not decoder.inputs.is_cuda:
        for step in steps.values():
            assert step().isfinite().all()
        return [_row(shape, name, note=notes.get(name, "")) for name in steps]
    replays, rows = {}, []
    for name, step in steps.items():
        try:
            replays[name] = captured(step)
        except Exception as error:
            # One variant that cannot run must not take the others' numbers with it.
            if name == "base":
                raise
            rows.append(_row(shape, name, note=f"{type(error).__name__}: {error}"))
    times = rounds_of(replays, rounds, budget_seconds)
    bases = [times[name] for name in ("base", "base, torch.compile") if name in times]
    base = min(bases, key=lambda seconds: spread(seconds)["median"])
    for name, seconds in times.items():
        ratios = [mine / of_base for mine, of_base in zip(seconds, base, strict=True)]
        row = _row(shape, name, note=notes.get(name, ""))
        rows.append({**row, "seconds": spread(seconds), "ratio_to_base": spread(ratios)})
    return rows


def largest_difference(decoder: Decoder, num_adapters: int) -> float:
    """Of one step's hidden states, between fused and unfused, in shares of the largest."""
    device = decoder.inputs.device.type
    bank = make_bank(decoder.shape, num_adapters, device)
    fused = Fused(slots_of(decoder.shape.tokens, num_adapters, device), bank)
    one, other = decoder.step(fused=fused).float(), decoder.step(applied=Unfused(fused)).float()
    return ((one - other).abs().max() / other.abs().max()).item()


def decoder_of(shape: Shape, device: str, dtype: torch.dtype) -> Decoder:
    """Weights for a shape; tokens and context are set per size."""
    return Decoder(replace(shape, tokens=1, context=0), device, dtype)


def one_layer(decoder: Decoder) -> Decoder:
    """The first layer alone, on the same weights."""
    layer = decoder.resized(1, 0)
    layer.shape = replace(layer.shape, layers=1)
    return layer


def _row(shape: Shape, variant: str, note: str = "") -> dict[str, Any]:
    return {
        "layers": shape.layers,
        "tokens": shape.tokens,
        "phase": "decode" if shape.context else "prefill",
        "variant": variant,
        "seconds": NOT_MEASURED,
        "ratio_to_base": NOT_MEASURED,
        "note": note,
    }
