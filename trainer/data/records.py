"""What a record is to each kind of task."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Example:
    """Text to text: the model reads `prompt`, learns `target`, and is right if it says `answer`."""

    prompt: str
    target: str
    answer: str
    messages: tuple[tuple[str, str], ...] = ()
    """Of a chat, (role, content) of the turns before the target, which a chat template takes
    instead of `prompt`."""


@dataclass(frozen=True)
class LabeledText:
    """A text, or a pair, with the index of its class, or with a number to predict."""

    text: str
    text_pair: str | None
    label: int | float


@dataclass(frozen=True)
class AnswerSpan:
    """An answer as it stands in the context, from the character `start` on."""

    text: str
    start: int


@dataclass(frozen=True)
class Question:
    """A question about a context; without an answer if `answers` is empty."""

    id: str
    question: str
    context: str
    answers: tuple[AnswerSpan, ...]


@dataclass(frozen=True)
class TaggedSentence:
    """Words, each with a tag such as `B-PER` or `O`."""

    tokens: tuple[str, ...]
    tags: tuple[str, ...]


Record = Example | LabeledText | Question | TaggedSentence
