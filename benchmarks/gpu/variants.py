"""The variants of a step: the base twice, Propulsion unfused and fused, and LoRA."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from benchmarks.gpu.adapters import GroupedLora, Unfused, make_bank, slots_of
from benchmarks.gpu.decoder import Applied, Decoder
from benchmarks.gpu.passes import Fused
from benchmarks.gpu.plain import compiled
from benchmarks.gpu.punica import PunicaLora

BASE, COMPILED_BASE = "base", "base, torch.compile"
RANKS = (8, 16)

Step = Callable[[], torch.Tensor]
Banks = dict[str, dict[str, list[torch.Tensor]]]


@dataclass(frozen=True)
class Variants:
    """Steps by name, what could not be made and why, and notes on what was."""

    steps: dict[str, Step] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)


def names_of(num_adapters: int, *, is_brief: bool) -> list[str]:
    """Of all variants; in brief those that the goals are about, and what they are compared with."""
    fused = f"propulsion fused, {num_adapters} adapters"
    names = [BASE, COMPILED_BASE, "propulsion unfused", fused, f"{fused}, bf16 bank"]
    if is_brief:
        return names
    return [
        *names,
        "propulsion fused, 1 adapter",
        *(f"LoRA r={rank}, {num_adapters} adapters" for rank in RANKS),
    ]


def make_banks(decoder: Decoder, num_adapters: int) -> Banks:
    """In fp32 and in bf16."""
    device = decoder.inputs.device.type
    return {
        name: make_bank(decoder.shape, num_adapters, device, dtype)
        for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))
    }


def make_variants(decoder: Decoder, banks: Banks, num_adapters: int, *, is_brief: bool) -> Variants:
    """All of `names_of` that can be made here."""
    device, tokens = decoder.inputs.device.type, decoder.shape.tokens
    one = Fused(slots_of(tokens, 1, device), banks["fp32"])
    many = Fused(slots_of(tokens, num_adapters, device), banks["fp32"])
    narrow = Fused(many.slots, banks["bf16"])
    plain = compiled() if decoder.inputs.is_cuda else None
    adapted: list[Step] = [
        lambda: decoder.step(applied=Unfused(many)),
        lambda: decoder.step(fused=many),
        lambda: decoder.step(fused=narrow),
        lambda: decoder.step(fused=one),
    ]
    base, compiled_base, *others = names_of(num_adapters, is_brief=is_brief)
    made = Variants({base: decoder.step})
    if plain is None:
        made.missing[compiled_base] = "needs a GPU"
    else:
        made.steps[compiled_base] = lambda: decoder.step(plain=plain)
    made.steps.update(zip(others, adapted, strict=False))
    for rank, name in zip(RANKS, others[len(adapted) :], strict=False):
        try:
            lora, made.notes[name] = _lora(decoder, rank, num_adapters)
        except torch.OutOfMemoryError:
            made.missing[name] = "the matrices of all adapters do not fit in memory"
            continue
        made.steps[name] = lambda lora=lora: decoder.step(applied=lora)
    return made


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
