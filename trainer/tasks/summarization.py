"""The task `summarization`: write a summary, judged by ROUGE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from propulsion.errors import ConfigError
from trainer.data.records import Example
from trainer.tasks.causal import CausalTask, check_has_end, encode_prompt
from trainer.tasks.generation import GeneratingTask, room_for_prompt
from trainer.tasks.losses import token_losses
from trainer.tasks.padding import pad_inputs, pad_labels
from trainer.tasks.rouge import rouge_scores
from trainer.tasks.task import IGNORED, EncodedRecord


class SummarizingTask(GeneratingTask):
    """What both kinds of model have in common."""

    def __init__(
        self, settings: Any, tokenizer: Any, max_length: int, labels: Sequence[str] = ()
    ) -> None:
        super().__init__(settings, tokenizer, max_length, labels)
        self.metric = settings.metric
        self.num_beams = settings.num_beams

    def score(self, predictions: Sequence[str], records: Sequence[Example]) -> dict[str, float]:
        """Mean F-measures `rouge1`, `rouge2` and `rougeLsum`, from 0 to 1."""
        return rouge_scores(predictions, [record.answer for record in records])


class CausalSummarization(SummarizingTask, CausalTask):
    """A causal LM goes on from the prompt with a summary."""

    def prompts(self, records: Sequence[Example]) -> list[list[int]]:
        """Token ids of the prompts; a long one loses its start."""
        room = room_for_prompt(self.max_length, self.max_new_tokens)
        return [encode_prompt(self.tokenizer, record.prompt, room) for record in records]


class Seq2SeqSummarization(SummarizingTask):
    """An encoder reads the prompt, and a decoder writes the summary.

    Raises:
        ConfigError: the tokenizer has no end-of-sequence token, or the base's configuration does
            not say what its decoder starts with.
    """

    peft_type = "SEQ_2_SEQ_LM"
    auto_model = "AutoModelForSeq2SeqLM"
    has_head = False

    def __init__(
        self, settings: Any, tokenizer: Any, max_length: int, labels: Sequence[str] = ()
    ) -> None:
        super().__init__(settings, tokenizer, max_length, labels)
        check_has_end(settings.type, tokenizer)
        self._decoder_start = _decoder_start(tokenizer.name_or_path)

    def encode(self, record: Example) -> Sequence[EncodedRecord]:
        """One row: the prompt, which loses its end if it is long, and the target as labels."""
        target = self.tokenizer(
            text_target=record.target, truncation=True, max_length=self.settings.max_target_length
        )["input_ids"]
        if target[-1:] != [self.tokenizer.eos_token_id]:
            room = self.settings.max_target_length - 1
            target = [*target[:room], self.tokenizer.eos_token_id]
        return [EncodedRecord(tuple(self._source(record)), tuple(target), len(target))]

    def _source(self, record: Example) -> list[int]:
        ids: list[int] = self.tokenizer(record.prompt, truncation=True, max_length=self.max_length)[
            "input_ids"
        ]
        return ids or [self.tokenizer.eos_token_id]

    def prompts(self, records: Sequence[Example]) -> list[list[int]]:
        """Token ids that the encoder reads."""
        return [self._source(record) for record in records]

    def collate(self, rows: Sequence[EncodedRecord]) -> dict[str, torch.Tensor]:
        """`input_ids`, `attention_mask`, `decoder_input_ids` and `labels`, int64.

        The first two are (rows, longest prompt), the others (rows, longest target).
        """
        labels = pad_labels(rows)
        pad_id = self.tokenizer.pad_token_id
        decoder_ids = labels.roll(1, dims=1)
        decoder_ids[:, 0] = self._decoder_start
        decoder_ids[decoder_ids == IGNORED] = pad_id
        return {
            **pad_inputs(rows, pad_id),
            "decoder_input_ids": decoder_ids,
            "labels": labels,
        }

    def losses(self, outputs: Any, labels: torch.Tensor) -> torch.Tensor:
        """Cross entropy summed over each row's target, (rows,), fp32."""
        return token_losses(outputs.logits, labels)


def _decoder_start(base: str) -> int:
    """The token before the first one of a target, of the base that a tokenizer was loaded from."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(base)
    except (OSError, ValueError) as error:
        raise ConfigError(f"base {base!r}: its configuration cannot be read: {error}") from error
    start = getattr(config, "decoder_start_token_id", None)
    if start is None:
        raise ConfigError(
            f"base {base!r}: its configuration has no decoder_start_token_id, so it cannot be "
            "trained as an encoder-decoder: choose another base, or task.model: causal"
        )
    return int(start)
