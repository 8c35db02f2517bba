"""ROUGE of summaries."""

from __future__ import annotations

import re
from collections.abc import Sequence

METRICS = ("rouge1", "rouge2", "rougeLsum")


def rouge_scores(predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Mean F-measures of ROUGE-1, ROUGE-2 and ROUGE-Lsum, from 0 to 1, of stemmed words.

    ROUGE-Lsum compares sentence by sentence: a line each, as CNN/DailyMail has them, or in a text
    of one line wherever `.`, `!` or `?` and a blank end one.
    """
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(METRICS, use_stemmer=True)
    totals = dict.fromkeys(METRICS, 0.0)
    for prediction, reference in zip(predictions, references, strict=True):
        scores = scorer.score(_sentence_a_line(reference), _sentence_a_line(prediction))
        for name in METRICS:
            totals[name] += scores[name].fmeasure
    return {name: total / len(references) for name, total in totals.items()}


def _sentence_a_line(text: str) -> str:
    text = text.strip()
    return text if "\n" in text else re.sub(r"(?<=[.!?])\s+", "\n", text)
