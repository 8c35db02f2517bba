"""Reads the answer from generated text, and says whether it is the right one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Literal

AnswerKind = Literal["text", "choice", "number"]

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?|-?\.\d+")


def extract_answer(text: str, kind: AnswerKind, choices: Sequence[str] = ()) -> str | None:
    """The answer that `text` gives, or None if it gives none.

    Args:
        text: what the model generated.
        kind: `text` takes all of it, `choice` the first word among `choices`, `number` the last
            number (as the LLM-Adapters evaluation does).
        choices: the answers there are; compared without regard to case.
    """
    if kind == "text":
        return text.strip() or None
    if kind == "number":
        numbers = _NUMBER.findall(text)
        return numbers[-1].replace(",", "") if numbers else None
    options = "|".join(re.escape(c) for c in sorted(set(choices), key=len, reverse=True))
    found = re.search(rf"\b(?:{options})\b", text, flags=re.IGNORECASE) if options else None
    return found.group(0).lower() if found else None


def is_correct(extracted: str | None, answer: str, kind: AnswerKind) -> bool:
    """Exact match; numbers match if they are equal within 1e-3, as in LLM-Adapters."""
    if extracted is None:
        return False
    if kind == "number":
        try:
            return abs(float(extracted) - float(answer.replace(",", ""))) <= 1e-3
        except ValueError:
            return False
    return extracted.strip().lower() == answer.strip().lower()


def majority_accuracy(answers: Sequence[str]) -> float:
    """Share that always giving the most frequent answer gets right, from 0 to 1."""
    counts = Counter(answer.strip().lower() for answer in answers)
    return counts.most_common(1)[0][1] / len(answers)
