"""Tokens of the records, and which records each rank sees at each step."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import torch

from propulsion.errors import DataError
from trainer.records import Example

T = TypeVar("T")

IGNORED = -100
"""Label of the tokens that the loss leaves out, as in transformers."""


@dataclass(frozen=True)
class TokenizedExample:
    """Prompt and target as one sequence; the first `prompt_length` ids bear no loss."""

    ids: tuple[int, ...]
    prompt_length: int

    @property
    def num_target_tokens(self) -> int:
        return len(self.ids) - self.prompt_length


def encode_prompt(tokenizer: Any, prompt: str, max_length: int) -> list[int]:
    """Ids of a prompt, special tokens included; one longer than `max_length` loses its start."""
    ids: list[int] = tokenizer(prompt)["input_ids"]
    if len(ids) <= max_length:
        return ids
    bos = ids[:1] if ids[0] == tokenizer.bos_token_id else []
    return bos + ids[len(ids) - max_length + len(bos) :]


def tokenize(
    tokenizer: Any, examples: Sequence[Example], max_length: int
) -> list[TokenizedExample]:
    """Ids of each example, at most `max_length`, target and end-of-sequence token whole.

    Raises:
        DataError: a target alone leaves no room for any of its prompt.
    """
    tokenized = []
    for example in examples:
        target = tokenizer(example.target, add_special_tokens=False)["input_ids"]
        target.append(tokenizer.eos_token_id)
        room = max_length - len(target)
        if room < 2:
            raise DataError(
                f"the target {example.target[:60]!r} has {len(target)} tokens, but data.max_length "
                f"is {max_length}: raise it, or leave the record out"
            )
        prompt = encode_prompt(tokenizer, example.prompt, room)
        tokenized.append(TokenizedExample((*prompt, *target), len(prompt)))
    return tokenized


def collate(examples: Sequence[TokenizedExample], pad_id: int) -> dict[str, torch.Tensor]:
    """Right-padded `input_ids`, `attention_mask` and `labels`, each (batch, longest), int64."""
    longest = max(len(example.ids) for example in examples)
    input_ids = torch.full((len(examples), longest), pad_id)
    attention_mask = torch.zeros_like(input_ids)
    labels = torch.full_like(input_ids, IGNORED)
    for row, example in enumerate(examples):
        length = len(example.ids)
        input_ids[row, :length] = torch.tensor(example.ids)
        attention_mask[row, :length] = 1
        labels[row, example.prompt_length : length] = input_ids[row, example.prompt_length : length]
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}


def step_indices(num_examples: int, batch_size: int, step: int, seed: int) -> list[int]:
    """Which examples make the batch of a step, over all ranks.

    A pure function of its arguments, so a run resumes at any step and on any number of ranks:
    the stream of all epochs, each in an order of its own, is cut into batches.
    """
    indices: list[int] = []
    position = step * batch_size
    while len(indices) < batch_size:
        epoch, offset = divmod(position + len(indices), num_examples)
        order = _epoch_order(num_examples, epoch, seed)
        indices += order[offset : offset + batch_size - len(indices)]
    return indices


@lru_cache(maxsize=2)
def _epoch_order(num_examples: int, epoch: int, seed: int) -> list[int]:
    order = list(range(num_examples))
    random.Random(f"{seed}/{epoch}").shuffle(order)
    return order


def rank_share(batch: Sequence[T], rank: int, world_size: int) -> list[T]:
    """The part of a step's examples that one rank computes; parts differ by one in size."""
    return list(batch[rank::world_size])
