"""f(x), the one number per sample whose gradients make the kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
from torch import nn

from propulsion.analysis.ntk import Parameters, ScalarFunction
from propulsion.analysis.samples import Sample


class Task(StrEnum):
    """What the model's outputs mean."""

    CAUSAL_LM = "causal-lm"
    CLASSIFICATION = "classification"


DESCRIPTIONS = {
    Task.CAUSAL_LM: "log-odds of the sample's last token given the tokens before it",
    Task.CLASSIFICATION: "logit of the class that the base model predicts",
}


@dataclass(frozen=True)
class Probe:
    """A sample as f takes it."""

    token_ids: torch.Tensor
    """Shape (1, num_tokens), int64."""
    target: int
    """The token, or the class, that f speaks of."""


def causal_lm_probes(samples: Sequence[Sample]) -> list[Probe]:
    """Splits each sample into its last token and the tokens before it."""
    return [
        Probe(torch.tensor([sample.token_ids[:-1]]), sample.token_ids[-1]) for sample in samples
    ]


@torch.no_grad()
def classification_probes(
    model: nn.Module, offsets: Parameters, samples: Sequence[Sample]
) -> list[Probe]:
    """Each sample with the class predicted at `offsets`.

    Args:
        model: as `scalar_output` takes it.
        offsets: zeros, where the model is the base.
    """
    probes = []
    for sample in samples:
        token_ids = torch.tensor([sample.token_ids])
        target = int(_logits(model, offsets, token_ids)[0].argmax())
        probes.append(Probe(token_ids, target))
    return probes


def scalar_output(model: nn.Module, task: Task) -> ScalarFunction[Probe]:
    """f(parameters, probe); parameters that are not given are the model's own.

    Args:
        model: a transformers model for `task`, with adapters or without, in evaluation mode.
        task: CAUSAL_LM: f is log p / (1 - p), with p the probability of the target after
            token_ids. Like the logit of a class, and unlike log p, it does not saturate where the
            model is sure, so no few surprising samples outweigh all others in the kernel; unlike
            the logit of a token, it does not change when all logits move alike. CLASSIFICATION: f
            is the target's logit.

    Returns:
        A function to a tensor of shape (), in the model's dtype, for a batch of this one sample.
    """

    def last_token_log_odds(parameters: Parameters, probe: Probe) -> torch.Tensor:
        logits = _logits(model, parameters, probe.token_ids)[0, -1]
        others = torch.cat((logits[: probe.target], logits[probe.target + 1 :]))
        return logits[probe.target] - others.logsumexp(dim=0)

    def class_logit(parameters: Parameters, probe: Probe) -> torch.Tensor:
        return _logits(model, parameters, probe.token_ids)[0, probe.target]

    return last_token_log_odds if task is Task.CAUSAL_LM else class_logit


def _logits(model: nn.Module, parameters: Parameters, token_ids: torch.Tensor) -> torch.Tensor:
    inputs = {"input_ids": token_ids, "attention_mask": torch.ones_like(token_ids)}
    output: Any = torch.func.functional_call(model, dict(parameters), kwargs=inputs)
    logits: torch.Tensor = output.logits
    return logits
