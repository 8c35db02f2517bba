"""What the tasks with a head that reads whole texts have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from propulsion.errors import DataError
from trainer.data.records import LabeledText
from trainer.tasks.passes import forward_passes
from trainer.tasks.task import EncodedRecord, Task


class TextHeadTask(Task):
    """A head on the model reads a text, or a pair of texts."""

    peft_type = "SEQ_CLS"
    auto_model = "AutoModelForSequenceClassification"

    def model_options(self) -> dict[str, Any]:
        """`pad_token_id`, by which decoders find the last token of a text."""
        return {"pad_token_id": self.tokenizer.pad_token_id}

    def row(self, record: LabeledText, label: int | float) -> EncodedRecord:
        """The text or pair, special tokens included; the longer of a pair is shortened first.

        Raises:
            DataError: the tokenizer finds no token in it.
        """
        encoded = self.tokenizer(
            record.text, record.text_pair, truncation=True, max_length=self.max_length
        )
        if not encoded["input_ids"]:
            raise DataError(
                f"the text {record.text[:60]!r} has no tokens: leave the record out of the data"
            )
        return EncodedRecord(tuple(encoded["input_ids"]), label, 1, token_types(encoded))

    def logits(
        self,
        model: Any,
        records: Sequence[LabeledText],
        batch_size: int,
        agree: Callable[[int], int],
    ) -> torch.Tensor:
        """Output of the head for each record, shape (records, labels), fp32, on the CPU."""
        rows = [self.row(record, 0) for record in records]
        pad_id = self.tokenizer.pad_token_id
        found: list[torch.Tensor] = [torch.empty(0)] * len(rows)
        for batch, outputs in forward_passes(
            model, rows, pad_id, batch_size=batch_size, agree=agree
        ):
            for index, row in zip(batch, outputs.logits.float().cpu(), strict=True):
                found[index] = row
        return torch.stack(found) if found else torch.empty(0, 1)


def token_types(encoded: Any) -> tuple[int, ...] | None:
    """The tokenizer's `token_type_ids`.

    Left out where all are 0, which models take them for; some that do not know types would take
    them for tokens.
    """
    types = encoded.get("token_type_ids")
    return tuple(types) if types is not None and any(types) else None
