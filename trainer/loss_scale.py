"""The factor that keeps small gradients above fp16's smallest number."""

from __future__ import annotations

from dataclasses import dataclass

_LARGEST = 2.0**24
_STEPS_TO_GROW = 1000


@dataclass
class LossScale:
    """Halves when a gradient overflowed, doubles after a while without; always 1 but in fp16."""

    value: float = 1.0
    good_steps: int = 0
    dynamic: bool = False

    @classmethod
    def for_dtype(cls, dtype: str) -> LossScale:
        """2^16 to begin with in fp16, as in DeepSpeed; bf16 and fp32 have exponents enough."""
        return cls(2.0**16, dynamic=True) if dtype == "fp16" else cls()

    def update(self, overflowed: bool) -> None:
        """Take note of a step; every rank must say the same."""
        if not self.dynamic:
            return
        if overflowed:
            self.value = max(1.0, self.value / 2)
            self.good_steps = 0
            return
        self.good_steps += 1
        if self.good_steps >= _STEPS_TO_GROW:
            self.value = min(_LARGEST, self.value * 2)
            self.good_steps = 0
