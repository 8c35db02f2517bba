"""The task `causal_lm`: learn texts, judged by how likely the model finds others like them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from trainer.data.records import Example
from trainer.tasks.causal import CausalTask, encode_prompt, encode_target
from trainer.tasks.padding import pad_labels
from trainer.tasks.passes import forward_passes
from trainer.tasks.task import IGNORED, EncodedRecord


class LanguageModelling(CausalTask):
    """A causal LM learns the targets, and is judged by the likelihood that it gives to others."""

    metric = "log_likelihood"

    def encode(self, record: Example) -> Sequence[EncodedRecord]:
        """One row, or several where prompt and target are longer than `max_length`.

        The prompt then loses its start, but keeps half a row if it has that much, and each further
        row begins with the last token of the one before it, so that every token of the target is
        predicted once.
        """
        target = encode_target(self.tokenizer, record.target)
        room = max(self.max_length - len(target), self.max_length // 2)
        prompt = encode_prompt(self.tokenizer, record.prompt, room)
        ids = [*prompt, *target]
        labels = [*(IGNORED for _ in prompt), *target]
        rows = []
        for start in range(0, len(ids) - 1, self.max_length - 1):
            window = slice(start, start + self.max_length)
            learned = (IGNORED, *labels[window][1:])
            terms = sum(label != IGNORED for label in learned)
            rows.append(EncodedRecord(tuple(ids[window]), learned, terms))
        return rows

    def predict(
        self,
        model: Any,
        records: Sequence[Example],
        *,
        batch_size: int,
        agree: Callable[[int], int] = lambda number: number,
        synced: bool = False,
    ) -> list[tuple[float, int]]:
        """Of each record the negative log likelihood of its target, in nats, and its tokens."""
        encoded = [(i, row) for i, record in enumerate(records) for row in self.encode(record)]
        rows = [row for _, row in encoded]
        sums = [0.0] * len(rows)
        pad_id = self.tokenizer.pad_token_id
        for batch, outputs in forward_passes(
            model, rows, pad_id, batch_size=batch_size, agree=agree
        ):
            labels = pad_labels([rows[i] for i in batch]).to(outputs.logits.device)
            for index, value in zip(batch, self.losses(outputs, labels).tolist(), strict=True):
                sums[index] = value
        found = [(0.0, 0)] * len(records)
        for (i, row), value in zip(encoded, sums, strict=True):
            found[i] = (found[i][0] + value, found[i][1] + row.num_terms)
        return found

    def score(
        self, predictions: Sequence[tuple[float, int]], records: Sequence[Example]
    ) -> dict[str, float]:
        """Mean `log_likelihood` of a target token in nats, at most 0, and its `perplexity`."""
        total = math.fsum(nll for nll, _ in predictions)
        mean = total / sum(tokens for _, tokens in predictions)
        return {"log_likelihood": -mean, "perplexity": math.exp(min(mean, 700.0))}
