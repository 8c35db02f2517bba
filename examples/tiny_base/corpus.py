"""The pretraining text of the tiny base: training splits only, nothing a test split also holds.

Only text is used, never the labels of SST-2 and CoLA, so that the tasks which the demo trains
adapters for are not already solved by the base.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

NGRAM = 8
"""A training text that shares this many consecutive words with a test record is dropped."""


def words(text: str) -> tuple[str, ...]:
    """Lower-cased words and numbers of `text`; punctuation and spacing do not count."""
    return tuple(re.findall(r"[a-z]+|\d+(?:\.\d+)?", text.lower()))


class Decontaminator:
    """Says whether a training text repeats a test record.

    A text repeats one if their words are equal, or if the two share `NGRAM` consecutive words.
    """

    def __init__(self, test_texts: Iterable[str]) -> None:
        self._whole: set[tuple[str, ...]] = set()
        self._ngrams: set[tuple[str, ...]] = set()
        for text in test_texts:
            tokens = words(text)
            self._whole.add(tokens)
            self._ngrams.update(_ngrams(tokens))

    def repeats_test(self, text: str) -> bool:
        tokens = words(text)
        return tokens in self._whole or any(gram in self._ngrams for gram in _ngrams(tokens))


def _ngrams(tokens: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    return (tokens[i : i + NGRAM] for i in range(len(tokens) - NGRAM + 1))


# Phrases that every record of a set has by construction say nothing about leakage.
_BOILERPLATE = re.compile(
    r"Please (?:choose the correct (?:answer|solution) to the question:"
    r"|choose the correct answer to fill in the blank to complete the given sentence:"
    r"|answer the following question with true or false, question:)"
    r"|(?:Answer|Solution|Option)\d:|Answer format: \S+"
)


def _without_boilerplate(text: str) -> str:
    return _BOILERPLATE.sub(" ", text)


def test_texts(data: Path) -> Iterator[str]:
    """Every question or sentence of every test or dev split below `data`."""
    for name in ("glue/CoLA/val.tsv", "glue/CoLA/dev.tsv"):
        yield from (row[3] for row in _tsv(data / name))
    yield from (row[0] for row in _tsv(data / "glue/SST-2/dev.tsv") if row[0] != "sentence")
    for line in (data / "gsm8k/test.jsonl").read_text().splitlines():
        yield json.loads(line)["question"]
    for path in sorted(data.glob("reasoning/*/test.json")):
        yield from (_without_boilerplate(r["instruction"]) for r in json.loads(path.read_text()))
    for name in ("validset", "testset"):
        path = data / f"reasoning/mawps/{name}.json"
        yield from (r["original_text"] for r in json.loads(path.read_text()))


def _tsv(path: Path) -> Iterator[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        yield from csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)


def training_documents(data: Path) -> dict[str, list[str]]:
    """Documents by source, from the training splits below `data`, test repeats removed."""
    clean = Decontaminator(test_texts(data))
    sources: dict[str, list[str]] = {
        "sst2": [row[0].strip() for row in _tsv(data / "glue/SST-2/train.tsv")][1:],
        "cola": [row[3] for row in _tsv(data / "glue/CoLA/train.tsv")],
        "gsm8k": [],
        "math": [],
        "mawps": [],
        "commonsense": [],
    }
    for line in (data / "gsm8k/train.jsonl").read_text().splitlines():
        record = json.loads(line)
        answer = re.sub(r"<<.*?>>", "", record["answer"]).replace("\n#### ", "\nThe answer is ")
        sources["gsm8k"].append(f"{record['question']}\n{answer}")
    for record in json.loads((data / "reasoning/math_data.json").read_text()):
        text = f"{record['instruction'].strip()}\n{record['output'].strip().removeprefix('A: ')}"
        sources["math"].append(text)
    for record in json.loads((data / "reasoning/mawps/trainset.json").read_text()):
        sources["mawps"].append(f"{record['original_text']}\n{record['equation']}")
    for name in ("boolq", "openbookqa", "ARC-Easy", "ARC-Challenge"):
        for record in json.loads((data / f"reasoning/{name}/train.json").read_text()):
            sources["commonsense"].append(_plain_question(record))
    return {
        name: [text for text in texts if not clean.repeats_test(_without_boilerplate(text))]
        for name, texts in sources.items()
    }


def _plain_question(record: dict[str, str]) -> str:
    """A commonsense record as running text: the question, then the right answer if it has one."""
    text = record["instruction"]
    options = re.search(
        rf"{record['answer'].capitalize()}:(.*?)(?=Answer\d:|Answer format)", text, re.S
    )
    question = re.sub(r"^.*?question:", "", text.split("\n\n")[0], flags=re.S).strip()
    return f"{question}\n{options.group(1).strip()}" if options else question
