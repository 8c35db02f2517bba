"""Exact match on the extracted answer, with greedy generation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from trainer.answers import AnswerKind, extract_answer, is_correct, majority_accuracy
from trainer.batches import encode_prompt
from trainer.config import RunConfig
from trainer.records import Example


@dataclass(frozen=True)
class EvaluationResult:
    """Accuracies are shares from 0 to 1."""

    accuracy: float
    majority_accuracy: float
    num_test: int
    predictions: list[str]
    """What was generated for each example; on rank 0's share only when there are several ranks."""


@torch.inference_mode()
def generate(
    model: Any, tokenizer: Any, prompts: Sequence[str], run: RunConfig, *, synced: bool = False
) -> list[list[int]]:
    """Greedy continuation of each prompt, as token ids without the end-of-sequence token.

    Args:
        synced: all ranks generate in lockstep, as ZeRO-3's partitioned weights need.
    """
    settings = run.evaluation
    room = max(8, run.data.max_length - settings.max_new_tokens)
    encoded = [encode_prompt(tokenizer, prompt, room) for prompt in prompts]
    # Batches of like length pad little; the order is put right again at the end.
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
    outputs: list[list[int]] = [[] for _ in encoded]
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    for start in range(0, len(order), settings.batch_size):
        rows = order[start : start + settings.batch_size]
        longest = max(len(encoded[i]) for i in rows)
        input_ids = torch.full((len(rows), longest), tokenizer.pad_token_id)
        attention_mask = torch.zeros_like(input_ids)
        for row, i in enumerate(rows):
            input_ids[row, longest - len(encoded[i]) :] = torch.tensor(encoded[i])
            attention_mask[row, longest - len(encoded[i]) :] = 1
        generated = model.generate(
            input_ids=input_ids.to(device),
            attention_mask=attention_mask.to(device),
            max_new_tokens=settings.max_new_tokens,
            do_sample=False,
            use_cache=True,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            synced_gpus=synced,
        )
        for row, i in enumerate(rows):
            new = generated[row, longest:].tolist()
            end = new.index(tokenizer.eos_token_id) if tokenizer.eos_token_id in new else len(new)
            outputs[i] = new[:end]
    model.train(was_training)
    return outputs


def evaluate(
    model: Any,
    tokenizer: Any,
    examples: Sequence[Example],
    run: RunConfig,
    *,
    rank: int = 0,
    world_size: int = 1,
) -> EvaluationResult:
    """Accuracy over `examples`, divided over the ranks; collective if there are several."""
    answers = [example.answer for example in examples]
    kind: AnswerKind = run.evaluation.answer
    # Every rank must make the same number of generate calls, so all shares are equally long.
    share = -(-len(examples) // world_size)
    mine = [examples[i] for i in range(rank, len(examples), world_size)]
    padded = mine + [examples[0]] * (share - len(mine))
    ids = generate(
        model,
        tokenizer,
        [example.prompt for example in padded],
        run,
        synced=world_size > 1 and run.deepspeed.stage == 3,
    )
    texts = tokenizer.batch_decode(ids)[: len(mine)]
    correct = sum(
        is_correct(extract_answer(text, kind, answers), example.answer, kind)
        for text, example in zip(texts, mine, strict=True)
    )
    total = torch.tensor(float(correct))
    if world_size > 1:
        total = total.to(next(model.parameters()).device)
        torch.distributed.all_reduce(total)
    return EvaluationResult(
        accuracy=total.item() / len(examples),
        majority_accuracy=majority_accuracy(answers),
        num_test=len(examples),
        predictions=texts,
    )
