"""Data sets that are one JSON file, or lines of it, in a layout of their own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from propulsion.errors import DataError
from trainer.data.columns import answer_span, parsed_line
from trainer.data.fields import field, list_field, number_text, text_field
from trainer.data.prompts import fill
from trainer.data.records import Example, Question
from trainer.data.rows import Decoder


def read_instructions(path: Path, prompt: str) -> Iterator[Example]:
    """The records of an LLM-Adapters file.

    Raises:
        DataError: it is malformed.
    """
    for line, record in _json_list(path):
        where = f"{path}:{line}"
        instruction, output, answer = (
            text_field(record, key, where) for key in ("instruction", "output", "answer")
        )
        extra = record.get("input") or ""
        text = f"{instruction}\n{extra}" if extra else instruction
        yield Example(fill(prompt, text.strip()), output.strip(), answer.strip())


def read_mawps(path: Path, prompt: str) -> Iterator[Example]:
    """The records of a MAWPS file; the model learns the equation and the answer.

    Raises:
        DataError: it is malformed.
    """
    for line, record in _json_list(path):
        where = f"{path}:{line}"
        text, equation, answer = (
            text_field(record, key, where).strip() for key in ("original_text", "equation", "ans")
        )
        answer = number_text(answer)
        # The last number of a text is what counts as its answer.
        yield Example(fill(prompt, text), f"{equation}\nThe answer is {answer}.", answer)


def gsm8k_decoder(prompt: str) -> Decoder:
    """What makes a record of a line of GSM8K in the column `text`; nothing of a blank line."""
    return partial(_decode_gsm8k, prompt=prompt)


def read_squad(path: Path) -> Iterator[Question]:
    """The questions of a SQuAD file; one that cannot be answered has no answers.

    Raises:
        DataError: it is malformed.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: not valid JSON ({error})") from error
    for i, article in enumerate(list_field(content, "data", str(path))):
        for j, paragraph in enumerate(list_field(article, "paragraphs", f"{path}: data[{i}]")):
            where = f"{path}: data[{i}].paragraphs[{j}]"
            context = text_field(paragraph, "context", where)
            for k, asked in enumerate(list_field(paragraph, "qas", where)):
                yield _squad_question(asked, context, f"{where}.qas[{k}]")


def _squad_question(asked: Any, context: str, where: str) -> Question:
    identity, question = (text_field(asked, key, where) for key in ("id", "question"))
    # A question of 2.0 that cannot be answered may hold plausible answers elsewhere.
    answers = [] if asked.get("is_impossible") else list_field(asked, "answers", where)
    spans = (
        answer_span(context, field(a, "text", where), field(a, "answer_start", where), where)
        for a in answers
    )
    return Question(identity, question.strip(), context, tuple(spans))


def _decode_gsm8k(line: dict[str, str], where: str, *, prompt: str) -> Example | None:
    record = parsed_line(line, where)
    if record is None:
        return None
    question = text_field(record, "question", where)
    solution = text_field(record, "answer", where)
    final = re.search(r"####\s*(\S.*?)\s*$", solution)
    if final is None:
        raise DataError(f"{where}: 'answer' does not end in '#### <number>'")
    return Example(fill(prompt, question.strip()), solution.strip(), final.group(1))


def _json_list(path: Path) -> Iterator[tuple[int, Any]]:
    """The elements of a JSON list with the line each begins on."""
    content = path.read_text(encoding="utf-8-sig")
    decoder = json.JSONDecoder()
    blank = re.compile(r"\s*")
    position = blank.match(content).end()  # type: ignore[union-attr]
    line = 1 + content.count("\n", 0, position)
    if content[position : position + 1] != "[":
        raise DataError(f"{path}:{line}: must hold a JSON list of records")
    separator = "["
    while separator != "]":
        start = blank.match(content, position + 1).end()  # type: ignore[union-attr]
        line += content.count("\n", position, start)
        if separator == "[" and content[start : start + 1] == "]":
            return
        try:
            record, end = decoder.raw_decode(content, start)
        except ValueError as error:
            raise DataError(f"{path}:{line}: not valid JSON ({error})") from error
        yield line, record
        position = blank.match(content, end).end()  # type: ignore[union-attr]
        line += content.count("\n", start, position)
        separator = content[position : position + 1]
        if separator not in (",", "]"):
            raise DataError(f"{path}:{line}: expected ',' or ']' after a record")
