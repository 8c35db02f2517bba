"""Contexts cut into windows, and the answers that a model marks in them, as SQuAD is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainer.data.records import AnswerSpan, Question


@dataclass(frozen=True)
class Window:
    """A question with as much of its context as fits into a row."""

    ids: tuple[int, ...]
    offsets: tuple[tuple[int, int] | None, ...]
    """Of each token its characters in the context; None for all that is not context."""
    null: int
    """The token that stands for "no answer"."""

    def position(self, answer: AnswerSpan) -> tuple[int, int]:
        """First and last token of an answer; `null` twice if it is not all in this window."""
        begin, end = answer.start, answer.start + len(answer.text)
        inside = [
            (token, span)
            for token, span in enumerate(self.offsets)
            if span is not None and span[0] < end and span[1] > begin
        ]
        # Some tokenizers count the blank before a word to its token, so ends need not be equal.
        if not inside or inside[0][1][0] > begin or inside[-1][1][1] < end:
            return self.null, self.null
        return inside[0][0], inside[-1][0]


@dataclass(frozen=True)
class Span:
    """The best answer of a window: characters of the context and the sum of its two logits."""

    score: float
    begin: int
    end: int


def context_windows(
    tokenizer: Any, question: Question, *, max_length: int, doc_stride: int, max_query_length: int
) -> list[Window]:
    """Windows of at most `max_length` tokens that share `doc_stride` tokens of context.

    A question of more than `max_query_length` tokens loses its end.
    """
    encoded = tokenizer(
        _shortened(tokenizer, question.question.strip(), max_query_length),
        question.context,
        truncation="only_second",
        max_length=max_length,
        stride=doc_stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    windows = []
    for index, ids in enumerate(encoded["input_ids"]):
        sides = encoded.sequence_ids(index)
        offsets = tuple(
            (span[0], span[1]) if side == 1 and span[0] < span[1] else None
            for side, span in zip(sides, encoded["offset_mapping"][index], strict=True)
        )
        windows.append(Window(tuple(ids), offsets, _null_position(tokenizer, ids)))
    return windows


def _shortened(tokenizer: Any, question: str, max_tokens: int) -> str:
    offsets = tokenizer(question, add_special_tokens=False, return_offsets_mapping=True)[
        "offset_mapping"
    ]
    return question if len(offsets) <= max_tokens else question[: offsets[max_tokens - 1][1]]


def _null_position(tokenizer: Any, ids: Sequence[int]) -> int:
    """Of the classification token, or of what a decoder's rows begin with."""
    for special in (tokenizer.cls_token_id, tokenizer.bos_token_id):
        if special is not None and special in ids:
            return ids.index(special)
    return 0


def best_span(
    window: Window, starts: np.ndarray, ends: np.ndarray, *, n_best: int, max_answer_length: int
) -> Span | None:
    """The best pair of the `n_best` likeliest first and last tokens; None if none go together.

    Args:
        starts: logits, shape (tokens of the window or more,).
        ends: the same of the last tokens.
        max_answer_length: most tokens of an answer.
    """
    context = {token: span for token, span in enumerate(window.offsets) if span is not None}
    tokens = np.array(list(context), dtype=int)
    first = tokens[np.argsort(-starts[tokens], kind="stable")[:n_best]][:, None]
    last = tokens[np.argsort(-ends[tokens], kind="stable")[:n_best]][None, :]
    scores = np.where(
        (last >= first) & (last - first < max_answer_length), starts[first] + ends[last], -np.inf
    )
    if scores.size == 0 or np.isneginf(scores.max()):
        return None
    row, column = np.unravel_index(scores.argmax(), scores.shape)
    begin, end = context[first[row, 0]][0], context[last[0, column]][1]
    return Span(float(scores[row, column]), begin, end)
