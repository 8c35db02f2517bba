"""Losses of each row of a batch, in fp32."""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy

from trainer.tasks.task import IGNORED


def token_losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross entropy summed over the labelled tokens of each row.

    Args:
        logits: (rows, length or more, classes). What is more than the labels stands at the start,
            as the virtual tokens of prompt tuning do.
        labels: (rows, length), IGNORED where there is no loss.

    Returns:
        Shape (rows,), fp32, in nats.
    """
    logits = logits[:, logits.shape[1] - labels.shape[1] :]
    labelled = labels != IGNORED
    # Only these are taken to fp32: with a large vocabulary all of them would be the biggest tensor.
    terms = cross_entropy(logits[labelled].float(), labels[labelled], reduction="none")
    return terms.new_zeros(labels.shape).masked_scatter(labelled, terms).sum(1)


def next_token_losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """As `token_losses`, where the output at each token is a guess of the one after it."""
    logits = logits[:, logits.shape[1] - labels.shape[1] :]
    return token_losses(logits[:, :-1], labels[:, 1:])
