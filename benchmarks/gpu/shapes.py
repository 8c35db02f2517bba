"""Sizes of the models that are measured."""

from __future__ import annotations

from dataclasses import dataclass, replace

from benchmarks.gpu.families.bloom import BLOOM
from benchmarks.gpu.families.gptj import GPTJ
from benchmarks.gpu.families.llama import LLAMA
from benchmarks.gpu.family import Family


@dataclass(frozen=True)
class Projection:
    """A linear layer that may be several modules in one.

    Attributes:
        inputs: width of what goes in.
        parts: how many modules of their own are packed in it.
        width: of what comes out, all parts together.
    """

    inputs: int
    parts: int
    width: int


@dataclass(frozen=True)
class Shape:
    """Sizes of a model and of what it is run on.

    Attributes:
        model: whose sizes they are.
        family: what its blocks are.
        layers: how many blocks.
        hidden: width of the residual.
        intermediate: width of the MLP.
        head: values of an attention head.
        rotary: of a head, how many values the rotary embedding turns.
        tokens: of the step: one of each sequence, or all of one sequence in prefill.
        context: tokens in the cache of each sequence; 0 for a prefill.
    """

    model: str
    family: Family
    layers: int
    hidden: int
    intermediate: int
    head: int
    rotary: int
    tokens: int = 1
    context: int = 0

    @property
    def heads(self) -> int:
        """Of queries, and as many of keys."""
        return self.hidden // self.head

    @property
    def projections(self) -> dict[str, Projection]:
        """The linear layers of a block, in order."""
        up = "gate_up" if self.family.is_gated else "up"
        parts = 2 if self.family.is_gated else 1
        return {
            "qkv": Projection(self.hidden, 3, 3 * self.hidden),
            "o": Projection(self.hidden, 1, self.hidden),
            up: Projection(self.hidden, parts, parts * self.intermediate),
            "down": Projection(self.intermediate, 1, self.hidden),
        }

    def tiny(self) -> Shape:
        """The same family at sizes that say nothing of speed."""
        # The narrowest heads that vLLM has attention for on a CPU.
        rotary = 32 * self.rotary // self.head
        return replace(self, layers=2, hidden=64, intermediate=96, head=32, rotary=rotary)


LLAMA_7B = Shape("LLaMA-7B", LLAMA, 32, hidden=4096, intermediate=11008, head=128, rotary=128)
LLAMA_13B = Shape("LLaMA-13B", LLAMA, 40, hidden=5120, intermediate=13824, head=128, rotary=128)
BLOOMZ_7B1 = Shape("BLOOMz-7B1", BLOOM, 30, hidden=4096, intermediate=16384, head=128, rotary=0)
GPTJ_6B = Shape("GPT-J-6B", GPTJ, 28, hidden=4096, intermediate=16384, head=256, rotary=64)
# Beside LLaMA-7B, which is measured first and at more sizes.
OTHER_MODELS = (LLAMA_13B, BLOOMZ_7B1, GPTJ_6B)
