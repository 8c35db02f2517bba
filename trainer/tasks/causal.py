"""What the tasks of a causal LM have in common: a prompt, and a target that is learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from propulsion.errors import ConfigError, DataError
from trainer.data.records import Example
from trainer.tasks.losses import next_token_losses
from trainer.tasks.padding import pad_inputs, pad_labels
from trainer.tasks.task import IGNORED, EncodedRecord, Task


def encode_prompt(tokenizer: Any, prompt: str, max_length: int) -> list[int]:
    """Ids of a prompt, special tokens included, at least one.

    One longer than `max_length` loses its start, but not its beginning-of-sequence token.
    """
    ids: list[int] = tokenizer(prompt)["input_ids"]
    bos = tokenizer.bos_token_id
    if bos is not None and ids[:2] == [bos, bos]:
        # A chat template has written the token that the tokenizer then adds again.
        ids = ids[1:]
    if not ids:
        # The first token of a target needs one before it that predicts it.
        return [tokenizer.eos_token_id if bos is None else bos]
    if len(ids) <= max_length:
        return ids
    kept = ids[:1] if ids[0] == bos else []
    return kept + ids[len(ids) - max_length + len(kept) :]


def encode_target(tokenizer: Any, target: str) -> list[int]:
    """Ids of a target, with the end-of-sequence token."""
    return [*tokenizer(target, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]


def check_has_end(task_type: str, tokenizer: Any) -> None:
    """A text must have an end.

    Raises:
        ConfigError: the tokenizer has no end-of-sequence token.
    """
    if tokenizer.eos_token_id is None:
        raise ConfigError(
            f"task.type {task_type} needs a tokenizer with an end-of-sequence token, which that of "
            f"{tokenizer.name_or_path!r} lacks: choose another base"
        )


class CausalTask(Task):
    """A causal LM reads the prompt and learns the target and the end-of-sequence token.

    Raises:
        ConfigError: the tokenizer has no end-of-sequence token.
    """

    peft_type = "CAUSAL_LM"
    auto_model = "AutoModelForCausalLM"
    packs = True
    has_head = False

    def __init__(
        self, settings: Any, tokenizer: Any, max_length: int, labels: Sequence[str] = ()
    ) -> None:
        super().__init__(settings, tokenizer, max_length, labels)
        check_has_end(settings.type, tokenizer)

    def encode(self, record: Example) -> Sequence[EncodedRecord]:
        """One row: the prompt, which bears no loss, and the whole target.

        Raises:
            DataError: the target alone leaves no room for any of its prompt.
        """
        target = encode_target(self.tokenizer, record.target)
        room = self.max_length - len(target)
        if room < 2:
            raise DataError(
                f"the target {record.target[:60]!r} has {len(target)} tokens, but data.max_length "
                f"is {self.max_length}: raise it, or leave the record out"
            )
        prompt = encode_prompt(self.tokenizer, record.prompt, room)
        labels = (IGNORED,) * len(prompt) + tuple(target)
        return [EncodedRecord((*prompt, *target), labels, len(target))]

    def collate(self, rows: Sequence[EncodedRecord]) -> dict[str, torch.Tensor]:
        """`input_ids`, `attention_mask` and `labels`, each (rows, longest), int64."""
        return {**pad_inputs(rows, self.tokenizer.pad_token_id), "labels": pad_labels(rows)}

    def losses(self, outputs: Any, labels: torch.Tensor) -> torch.Tensor:
        """Cross entropy of the next token, summed over each row's target, (rows,), fp32."""
        return next_token_losses(outputs.logits, labels)
