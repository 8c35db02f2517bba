"""The task `question_answering`: mark the answer to a question in its context."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from propulsion.errors import ConfigError, DataError
from trainer.data.records import Question
from trainer.tasks.padding import pad_inputs
from trainer.tasks.passes import forward_passes
from trainer.tasks.squad import Span, Window, best_span, context_windows
from trainer.tasks.task import EncodedRecord, Task


class QuestionAnswering(Task):
    """A head on the model marks first and last token of an answer, in windows of the context.

    Raises:
        ConfigError: the tokenizer is not a fast one, or `doc_stride` and `max_query_length` leave
            no room in a row.
    """

    peft_type = "QUESTION_ANS"
    auto_model = "AutoModelForQuestionAnswering"

    def __init__(
        self, settings: Any, tokenizer: Any, max_length: int, labels: Sequence[str] = ()
    ) -> None:
        super().__init__(settings, tokenizer, max_length, labels)
        self.metric = settings.metric
        if not tokenizer.is_fast:
            raise ConfigError(
                "task.type question_answering needs a fast tokenizer, which tells the characters "
                f"of its tokens; {type(tokenizer).__name__} is none: choose another base"
            )
        taken = settings.max_query_length + tokenizer.num_special_tokens_to_add(pair=True)
        if settings.doc_stride >= max_length - taken:
            raise ConfigError(
                f"task.doc_stride is {settings.doc_stride}, but of data.max_length {max_length} a "
                f"question may take {taken}: raise data.max_length, or lower task.doc_stride or "
                "task.max_query_length"
            )

    def model_options(self) -> dict[str, Any]:
        """Two outputs per token: whether an answer starts there, and whether it ends there."""
        return {"num_labels": 2}

    def windows(self, record: Question) -> list[Window]:
        """The rows that the record's context is cut into.

        They have no token types: PEFT's model for this task keeps them from the base, so whoever
        loads the adapter would have it read other rows than it was trained on.
        """
        return context_windows(
            self.tokenizer,
            record,
            max_length=self.max_length,
            doc_stride=self.settings.doc_stride,
            max_query_length=self.settings.max_query_length,
        )

    def encode(self, record: Question) -> Sequence[EncodedRecord]:
        """A row per window, with the position of the first of its answers.

        Raises:
            DataError: an answer does not stand where the record says.
        """
        for answer in record.answers[:1]:
            found = record.context[answer.start : answer.start + len(answer.text)]
            if not answer.text or found != answer.text:
                raise DataError(
                    f"question {record.id!r}: the answer {answer.text[:60]!r} should stand at "
                    f"character {answer.start} of the context, where {found[:60]!r} stands: "
                    "correct the start, or leave the record out"
                )
        rows = []
        for window in self.windows(record):
            null = (window.null, window.null)
            labels = window.position(record.answers[0]) if record.answers else null
            rows.append(EncodedRecord(window.ids, labels, 1))
        return rows

    def collate(self, rows: Sequence[EncodedRecord]) -> dict[str, torch.Tensor]:
        """Inputs, each (rows, max_length), and `labels`, (rows, 2): start and end token, int64."""
        labels = torch.tensor([row.labels for row in rows], dtype=torch.long)
        # The loss of transformers is over all positions, padding too. With one length for every
        # batch, a row's loss does not depend on the rows beside it.
        inputs = pad_inputs(rows, self.tokenizer.pad_token_id, length=self.max_length)
        return {**inputs, "labels": labels}

    def losses(self, outputs: Any, labels: torch.Tensor) -> torch.Tensor:
        """Mean of the cross entropies of start and end of each row, (rows,), fp32."""
        start = cross_entropy(outputs.start_logits.float(), labels[:, 0], reduction="none")
        end = cross_entropy(outputs.end_logits.float(), labels[:, 1], reduction="none")
        return (start + end) / 2

    def predict(
        self,
        model: Any,
        records: Sequence[Question],
        *,
        batch_size: int,
        agree: Callable[[int], int] = lambda number: number,
        synced: bool = False,
    ) -> list[str]:
        """The answer to each record as it stands in the context, "" for none."""
        windows = [
            (i, window) for i, record in enumerate(records) for window in self.windows(record)
        ]
        rows = [EncodedRecord(window.ids, None, 0) for _, window in windows]
        nulls = [0.0] * len(rows)
        spans: list[Span | None] = [None] * len(rows)
        for batch, outputs in forward_passes(
            model, rows, self.tokenizer.pad_token_id, batch_size=batch_size, agree=agree
        ):
            starts = outputs.start_logits.float().cpu().numpy()
            ends = outputs.end_logits.float().cpu().numpy()
            for row, index in enumerate(batch):
                window = windows[index][1]
                nulls[index] = float(starts[row, window.null] + ends[row, window.null])
                spans[index] = best_span(
                    window,
                    starts[row],
                    ends[row],
                    n_best=self.settings.n_best,
                    max_answer_length=self.settings.max_answer_length,
                )
        answers = []
        of_record: list[list[int]] = [[] for _ in records]
        for index, (record_index, _) in enumerate(windows):
            of_record[record_index].append(index)
        for record, indices in zip(records, of_record, strict=True):
            best = max((s for i in indices if (s := spans[i])), key=lambda s: s.score, default=None)
            null = min(nulls[i] for i in indices)
            answers.append(self._text(record, best, null))
        return answers

    def _text(self, record: Question, best: Span | None, null: float) -> str:
        if best is None:
            return ""
        if self.settings.no_answer and null - best.score > self.settings.null_threshold:
            return ""
        return record.context[best.begin : best.end].strip()

    def score(self, predictions: Sequence[str], records: Sequence[Question]) -> dict[str, float]:
        """`exact` and `f1` of SQuAD, from 0 to 1.

        If some questions have no answer, also those of the questions with one (`HasAns_exact`,
        `HasAns_f1`) and of those without (`NoAns_exact`, `NoAns_f1`).
        """
        from transformers.data.metrics.squad_metrics import (
            compute_exact,
            compute_f1,
            normalize_answer,
        )

        groups: dict[str, list[tuple[float, float]]] = {"": [], "HasAns_": [], "NoAns_": []}
        for text, record in zip(predictions, records, strict=True):
            gold = [a.text for a in record.answers if normalize_answer(a.text)] or [""]
            found = (
                float(max(compute_exact(answer, text) for answer in gold)),
                float(max(compute_f1(answer, text) for answer in gold)),
            )
            groups[""].append(found)
            groups["HasAns_" if record.answers else "NoAns_"].append(found)
        if not groups["NoAns_"]:
            del groups["HasAns_"]
        return {
            f"{group}{name}": sum(pair[column] for pair in pairs) / len(pairs)
            for group, pairs in groups.items()
            if pairs
            for column, name in enumerate(("exact", "f1"))
        }

    def trivial_score(self, records: Sequence[Question]) -> float | None:
        """`metric` of never giving an answer; None if every question has one."""
        if all(record.answers for record in records):
            return None
        return self.score([""] * len(records), records)[self.metric]
