"""The learning rate at a step, as a pure function, so that it needs no checkpoint."""

import math

from trainer.config import TrainingSection


def learning_rate(training: TrainingSection, step: int) -> float:
    """Rate of the optimiser step with index `step`, counted from 0."""
    warmup = round(training.warmup_ratio * training.steps)
    if step < warmup:
        return training.lr * (step + 1) / warmup
    done = (step - warmup) / max(1, training.steps - warmup)
    if training.schedule == "cosine":
        return training.lr * 0.5 * (1 + math.cos(math.pi * done))
    if training.schedule == "linear":
        return training.lr * (1 - done)
    return training.lr
