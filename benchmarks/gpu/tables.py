"""The GPU benchmark's result as tables, and whether it reached what it was to reach."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from benchmarks.gpu.timing import NOT_MEASURED

LEAST_SHARE_OF_COPY = 0.85


def goals(result: dict[str, Any]) -> list[dict[str, Any]]:
    """What was to be reached, and whether it was; None where nothing was measured."""
    # Kernels are judged where there is enough to move that their start does not count.
    most = max(row["tokens"] for row in result["bandwidth"])
    rows = [
        _goal(
            f"{row['kernel']} at {row['tokens']} tokens, share of the copy's rate",
            row["share_of_copy"],
            at_least=LEAST_SHARE_OF_COPY,
        )
        for row in result["bandwidth"]
        if row["kernel"] != "copy" and row["tokens"] == most
    ]
    layers = max(row["layers"] for row in result["decoding"])
    for row in result["decoding"]:
        is_fused = (
            row["variant"].startswith("propulsion fused") and "1 adapter" not in row["variant"]
        )
        is_judged = row["tokens"] == 1 or row["tokens"] >= 64
        if row["layers"] == layers and row["phase"] == "decode" and is_fused and is_judged:
            limit = 1.02 if row["tokens"] == 1 else 1.01
            name = f"a step of {layers} layers at batch {row['tokens']}, {row['variant']} / base"
            rows.append(_goal(name, row["ratio_to_base"], at_most=limit))
    return rows


def _goal(
    name: str, value: Any, at_least: float | None = None, at_most: float | None = None
) -> dict[str, Any]:
    median = None if value == NOT_MEASURED else value["median"]
    is_met = None
    if median is not None:
        is_met = median >= at_least if at_least is not None else median <= (at_most or 0.0)
    limit = f"≥ {at_least}" if at_least is not None else f"≤ {at_most}"
    return {"goal": name, "limit": limit, "value": value, "is_met": is_met}


def markdown(result: dict[str, Any]) -> str:
    """All tables, one after another."""
    wrong = [row for row in result["correctness"] if not row["is_right"]]
    parts = [
        "# Kernels on a GPU",
        f"On {result['machine']['gpu'] or 'no GPU'}, torch {result['machine']['torch']}, in "
        f"{result['minutes']:.1f} minutes.",
        f"Right: {len(result['correctness']) - len(wrong)} of {len(result['correctness'])} "
        f"comparisons with the reference. Fused and unfused hidden states differ by "
        f"{result['fused_difference']:.1e} of the largest.",
        *(f"**Wrong**: {row}" for row in wrong),
        "## What runs",
        _table(("kernel", "runs on"), result["backends"].items()),
        "## Bytes per second",
        _table(
            ("kernel", "tokens", "adapters", "GB/s", "share of a copy (quartiles)"),
            (
                (
                    *(row["kernel"], row["tokens"], row["adapters"]),
                    _number(row["bytes_per_second"], 1e-9, ".0f", has_range=False),
                    _number(row["share_of_copy"], 1, ".3f"),
                )
                for row in result["bandwidth"]
            ),
        ),
        "## A layer, and a step",
        _table(
            ("layers", "phase", "tokens", "variant", "ms", "× base (quartiles)", "note"),
            (
                (
                    *(row["layers"], row["phase"], row["tokens"], row["variant"]),
                    _number(row["seconds"], 1e3, ".3f", has_range=False),
                    _number(row["ratio_to_base"], 1, ".3f"),
                    row["note"],
                )
                for row in result["decoding"]
            ),
        ),
        "## Goals",
        _table(
            ("goal", "limit", "value", "met"),
            (
                (
                    *(row["goal"], row["limit"], _number(row["value"], 1, ".3f")),
                    {None: NOT_MEASURED, True: "yes", False: "no"}[row["is_met"]],
                )
                for row in result["goals"]
            ),
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _number(value: Any, factor: float, form: str, *, has_range: bool = True) -> str:
    if value == NOT_MEASURED:
        return NOT_MEASURED
    median, low, high = (format(value[key] * factor, form) for key in ("median", "low", "high"))
    return f"{median} ({low}–{high})" if has_range else median


def _table(header: Iterable[Any], rows: Iterable[Iterable[Any]]) -> str:
    names = list(header)
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
