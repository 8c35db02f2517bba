"""The task `answer`: generate an answer and compare it with the right one."""

from __future__ import annotations

from collections.abc import Sequence

from trainer.data.records import Example
from trainer.tasks.answers import extract_answer, is_correct, majority_accuracy
from trainer.tasks.causal import CausalTask, encode_prompt
from trainer.tasks.generation import GeneratingTask, room_for_prompt


class Answering(GeneratingTask, CausalTask):
    """A causal LM generates an answer, which is compared with the record's."""

    metric = "accuracy"

    def prompts(self, records: Sequence[Example]) -> list[list[int]]:
        """Token ids of the prompts; a long one loses its start."""
        room = room_for_prompt(self.max_length, self.max_new_tokens)
        return [encode_prompt(self.tokenizer, record.prompt, room) for record in records]

    def score(self, predictions: Sequence[str], records: Sequence[Example]) -> dict[str, float]:
        """`accuracy`: the share of the texts from which the record's answer is read."""
        kind = self.settings.answer
        choices = sorted({record.answer for record in records}) if kind == "choice" else ()
        correct = [
            is_correct(extract_answer(text, kind, choices), record.answer, kind)
            for text, record in zip(predictions, records, strict=True)
        ]
        return {"accuracy": sum(correct) / len(correct)}

    def trivial_score(self, records: Sequence[Example]) -> float:
        """`accuracy` of always giving the most frequent answer."""
        return majority_accuracy([record.answer for record in records])
