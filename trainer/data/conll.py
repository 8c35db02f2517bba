"""Sentences as columns of tokens and tags."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from propulsion.errors import DataError
from trainer.data.records import TaggedSentence


def read_conll(path: Path) -> Iterator[TaggedSentence]:
    """The sentences of a file; tags stay in the scheme (IOB1, IOB2, …) in which they are written.

    Raises:
        DataError: a line has a token without a tag.
    """
    words: list[tuple[str, str]] = []
    with path.open(encoding="utf-8-sig") as file:
        for line, content in enumerate(file, start=1):
            columns = content.split()
            if columns and columns[0] != "-DOCSTART-":
                if len(columns) < 2:
                    raise DataError(f"{path}:{line}: {columns[0]!r} has no tag in a last column")
                words.append((columns[0], columns[-1]))
            elif words:
                yield _sentence(words)
                words = []
    if words:
        yield _sentence(words)


def _sentence(words: list[tuple[str, str]]) -> TaggedSentence:
    tokens, tags = zip(*words, strict=True)
    return TaggedSentence(tokens, tags)
