"""From a text and its label to the record of a task."""

from __future__ import annotations

import math
from collections.abc import Mapping

from propulsion.errors import DataError
from trainer.data.prompts import fill
from trainer.data.records import Example, LabeledText


def labeled_record(
    text: str,
    text_pair: str | None,
    label: str,
    labels: Mapping[str, str],
    task_type: str,
    prompt: str,
    where: str,
) -> Example | LabeledText:
    """The record that a task learns from a labelled text.

    Args:
        label: as the data holds it.
        labels: label → name, in the order of the class indices; may be empty for `regression`,
            and where the model is to say the label itself.
        prompt: the form of a prompt, with `{text}`.
        where: names the record in errors.

    Raises:
        DataError: the label is unknown, or not a number where one is to be predicted.
    """
    if task_type == "regression":
        return LabeledText(text, text_pair, _number(label, where))
    if labels and label not in labels:
        raise DataError(
            f"{where}: label {label!r} is not one of "
            f"{', '.join(map(repr, labels))} (records.labels in the run file)"
        )
    if task_type == "classification":
        return LabeledText(text, text_pair, list(labels).index(label))
    name = labels[label] if labels else label
    return Example(fill(prompt, text, text_pair), name, name)


def _number(label: str, where: str) -> float:
    try:
        number = float(label)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{where}: label {label!r} is not a number, which regression predicts")
    return number
