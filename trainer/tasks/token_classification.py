"""The task `token_classification`: tag each word of a sentence."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import torch

from propulsion.errors import ConfigError, DataError
from trainer.data.records import TaggedSentence
from trainer.tasks.losses import token_losses
from trainer.tasks.padding import pad_inputs, pad_labels
from trainer.tasks.passes import forward_passes
from trainer.tasks.task import IGNORED, EncodedRecord, Task
from trainer.tasks.texts import token_types

OUTSIDE = "O"
"""The tag of a word that is part of no entity."""


class TokenClassification(Task):
    """A head on the model tags each word, at its first token.

    Raises:
        ConfigError: the tokenizer is not a fast one, or no tags are known.
    """

    peft_type = "TOKEN_CLS"
    auto_model = "AutoModelForTokenClassification"

    def __init__(
        self, settings: Any, tokenizer: Any, max_length: int, labels: Sequence[str] = ()
    ) -> None:
        super().__init__(settings, tokenizer, max_length, labels)
        self.metric = settings.metric
        self._index = {tag: index for index, tag in enumerate(self.labels)}
        if not tokenizer.is_fast:
            raise ConfigError(
                "task.type token_classification needs a fast tokenizer, which tells the words of "
                f"its tokens; {type(tokenizer).__name__} is none: choose another base"
            )
        if len(self.labels) < 2:
            raise ConfigError(
                f"task.type token_classification needs two tags or more, got {list(self.labels)}: "
                "see data.records"
            )

    def model_options(self) -> dict[str, Any]:
        names = dict(enumerate(self.labels))
        return {"num_labels": len(names), "id2label": names, "label2id": self._index}

    def encode(self, record: TaggedSentence) -> Sequence[EncodedRecord]:
        """One row, labelled at the first token of each word; words beyond it are left out.

        Raises:
            DataError: a tag is unknown, tags and words differ in number, or there are no words.
        """
        sentence = " ".join(record.tokens)[:60]
        if len(record.tokens) != len(record.tags):
            raise DataError(
                f"the sentence {sentence!r} has {len(record.tokens)} words, but "
                f"{len(record.tags)} tags: give each word one"
            )
        unknown = sorted({*record.tags} - {*self.labels})
        if unknown:
            raise DataError(
                f"the sentence {sentence!r} has the tag {unknown[0]!r}, which is none of "
                f"{', '.join(self.labels)}: correct it, or add it to the training data"
            )
        row, firsts = self._row(record)
        if not firsts:
            raise DataError(f"the sentence {sentence!r} has no tokens: leave it out of the data")
        labels = [IGNORED] * len(row)
        for word, token in firsts.items():
            labels[token] = self._index[record.tags[word]]
        return [EncodedRecord(row.ids, tuple(labels), len(firsts), row.token_type_ids)]

    def _row(self, record: TaggedSentence) -> tuple[EncodedRecord, dict[int, int]]:
        """The sentence without labels, and of each word in it the first token.

        Words are joined by blanks and found again by their characters: tokenizers that write a
        word after a blank in another way than at the start of a text then see it as they know it.
        """
        begins = [0, *accumulate(len(word) + 1 for word in record.tokens)]
        text = " ".join(record.tokens)
        encoded = self.tokenizer(
            text, truncation=True, max_length=self.max_length, return_offsets_mapping=True
        )
        firsts: dict[int, int] = {}
        sides = encoded.sequence_ids()
        for token, (begin, end) in enumerate(encoded["offset_mapping"]):
            blanks = len(text[begin:end]) - len(text[begin:end].lstrip())
            if sides[token] is not None and begin + blanks < end:
                word = bisect_right(begins, begin + blanks) - 1
                firsts.setdefault(word, token)
        ids = tuple(encoded["input_ids"])
        return EncodedRecord(ids, None, 0, token_types(encoded)), firsts

    def collate(self, rows: Sequence[EncodedRecord]) -> dict[str, torch.Tensor]:
        """Inputs and `labels`, each (rows, longest), int64."""
        return {**pad_inputs(rows, self.tokenizer.pad_token_id), "labels": pad_labels(rows)}

    def losses(self, outputs: Any, labels: torch.Tensor) -> torch.Tensor:
        """Cross entropy summed over the words of each row, (rows,), fp32."""
        return token_losses(outputs.logits, labels)

    def predict(
        self,
        model: Any,
        records: Sequence[TaggedSentence],
        *,
        batch_size: int,
        agree: Callable[[int], int] = lambda number: number,
        synced: bool = False,
    ) -> list[tuple[str, ...]]:
        """The tags of each record's words; `O` for words beyond `max_length`."""
        rows, firsts = [], []
        for record in records:
            row, first = self._row(record)
            rows.append(row)
            firsts.append(first)
        found = [[OUTSIDE] * len(record.tokens) for record in records]
        for batch, outputs in forward_passes(
            model, rows, self.tokenizer.pad_token_id, batch_size=batch_size, agree=agree
        ):
            longest = max(len(rows[index]) for index in batch)
            # Virtual tokens of prompt tuning, if any, come first.
            tags = outputs.logits[:, -longest:].argmax(-1).tolist()
            for row, index in enumerate(batch):
                for word, token in firsts[index].items():
                    found[index][word] = self.labels[tags[row][token]]
        return [tuple(tags) for tags in found]

    def score(
        self, predictions: Sequence[Sequence[str]], records: Sequence[TaggedSentence]
    ) -> dict[str, float]:
        """`precision`, `recall` and `f1` of whole entities, and `accuracy` of the words' tags."""
        from seqeval.metrics import accuracy_score, f1_score, precision_score, recall_score

        truth = [list(record.tags) for record in records]
        found = [list(tags) for tags in predictions]
        return {
            "precision": float(precision_score(truth, found, zero_division=0)),
            "recall": float(recall_score(truth, found, zero_division=0)),
            "f1": float(f1_score(truth, found, zero_division=0)),
            "accuracy": float(accuracy_score(truth, found)),
        }
