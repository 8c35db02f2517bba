"""Reads the fields of one record, and says what is wrong with them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from propulsion.errors import DataError


def field(record: Any, key: str, where: str) -> Any:
    """The value of a key.

    Raises:
        DataError: the record is no mapping or lacks the key; `where` says which record it is.
    """
    if not isinstance(record, Mapping):
        raise DataError(f"{where}: a record must be a JSON object")
    if key not in record:
        raise DataError(f"{where}: the record has no {key!r}")
    return record[key]


def text_field(record: Any, key: str, where: str) -> str:
    """The text of a key, or a number or truth value as JSON writes it.

    Raises:
        DataError: as `field`, or the value is something else.
    """
    return as_text(field(record, key, where), key, where)


def as_text(value: Any, key: str, where: str) -> str:
    """`value` as text; see `text_field`."""
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    if not isinstance(value, str):
        raise DataError(f"{where}: {key!r} must be text, found {type(value).__name__}")
    return value


def list_field(record: Any, key: str, where: str) -> list[Any]:
    """The list of a key.

    Raises:
        DataError: as `field`, or the value is no list.
    """
    value = field(record, key, where)
    if not isinstance(value, list):
        raise DataError(f"{where}: {key!r} must be a list, found {type(value).__name__}")
    return value


def number_text(value: str) -> str:
    """A number as people write it: `2.0` is `2`; what is no number stays as it is."""
    try:
        number = float(value)
    except ValueError:
        return value
    return str(int(number)) if number.is_integer() else value
