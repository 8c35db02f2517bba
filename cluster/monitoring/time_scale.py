"""Shortens what Prometheus waits for, all by one factor, and leaves the expressions as they are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = r"(?:\d+(?:ms|[smhd]))+"
# A window `[5m]`, both parts of a subquery `[1h:5m]`, and an `offset 30m`.
_IN_EXPRESSION = re.compile(rf"(?<=\[){_DURATION}|(?<=:){_DURATION}(?=\])|(?<=offset ){_DURATION}")
_WAITS = ("for", "keep_firing_for", "interval")


def scale_duration(text: str, factor: float) -> str:
    """A duration such as `1h30m`, times `factor`, to the millisecond."""
    parts = re.findall(r"(\d+)(ms|[smhd])", text)
    milliseconds = sum(int(number) * _UNIT_MS[unit] for number, unit in parts)
    return f"{max(1, round(milliseconds * factor))}ms"


def scale_expression(expression: str, factor: float) -> str:
    """A PromQL expression with its windows and offsets scaled."""
    return _IN_EXPRESSION.sub(lambda found: scale_duration(found.group(), factor), expression)


def scale_rules(document: Mapping[str, Any], factor: float) -> dict[str, Any]:
    """A rule file's content with every window, offset, `for` and `interval` scaled."""
    groups = []
    for group in document["groups"]:
        rules = [
            {**_scale_waits(rule, factor), "expr": scale_expression(rule["expr"], factor)}
            for rule in group["rules"]
        ]
        groups.append({**_scale_waits(group, factor), "rules": rules})
    return {**document, "groups": groups}


def _scale_waits(entry: Mapping[str, Any], factor: float) -> dict[str, Any]:
    waits = {name: scale_duration(entry[name], factor) for name in _WAITS if name in entry}
    return {**entry, **waits}
