"""The result as tables, and whether it reached what it was to reach."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from benchmarks.gpu.timing import NOT_MEASURED

LEAST_SHARE_OF_COPY = 0.85
LEAST_SHARE_OF_ENGINE = 0.99
RESIDENT_ADAPTERS = 10_000
MOST_RESIDENT_GIB = 8.0


def goals(result: dict[str, Any]) -> list[dict[str, Any]]:
    """What was to be reached, and whether it was; None where nothing was measured."""
    return [
        *_kernel_goals(result["bandwidth"]),
        *_step_goals(result["decoding"]),
        *_bank_goals(result["bank"]),
        *_engine_goals(result["engine"]),
    ]


def _kernel_goals(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    # Kernels are judged where there is enough to move that their start does not count.
    most = max((row["tokens"] for row in rows), default=0)
    return [
        _goal(
            f"{row['kernel']}, {row['model']} at {most} tokens, share of the copy's rate",
            row["share_of_copy"],
            at_least=LEAST_SHARE_OF_COPY,
        )
        for row in rows
        if row["kernel"] != "copy" and row["tokens"] == most
    ]


def _step_goals(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    judged = []
    for row in rows:
        is_fused = (
            row["variant"].startswith("propulsion fused") and "1 adapter" not in row["variant"]
        )
        is_judged = row["tokens"] == 1 or row["tokens"] >= 64
        if row["layers"] > 1 and row["phase"] == "decode" and is_fused and is_judged:
            name = (
                f"a step of {row['model']} ({row['layers']} layers) at batch {row['tokens']}, "
                f"{row['variant']} / base"
            )
            limit = 1.02 if row["tokens"] == 1 else 1.01
            judged.append(_goal(name, row["ratio_to_base"], at_most=limit))
    return judged


def _bank_goals(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    judged = []
    for row in rows:
        if row["dtype"] == "bfloat16":
            is_whole = row["adapters"] >= RESIDENT_ADAPTERS
            goal = _goal(
                f"{RESIDENT_ADAPTERS:,} attention adapters of LLaMA-7B resident, bf16 bank, GiB",
                row["bytes"] / 2**30 if is_whole else NOT_MEASURED,
                at_most=MOST_RESIDENT_GIB,
            )
            judged.append({**goal, "is_met": goal["is_met"] and row["is_last_right"]})
    return judged


def _engine_goals(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        _goal(
            f"vLLM's tokens per second, {row['variant']} / without adapters",
            row["ratio_to_base"],
            at_least=LEAST_SHARE_OF_ENGINE,
        )
        for row in rows
        if row["is_judged"]
    ]


def _goal(
    name: str, value: Any, at_least: float | None = None, at_most: float | None = None
) -> dict[str, Any]:
    is_met = None
    if value != NOT_MEASURED:
        median = value["median"] if isinstance(value, dict) else value
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
        f"comparisons with the reference.",
        *(f"**Wrong**: {row}" for row in wrong),
        *(
            f"{model}: fused and unfused hidden states differ by {difference:.1e} of the largest."
            for model, difference in result["fused_difference"].items()
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
        "## Left out",
        _table(("what", "why"), result["left_out"].items()) if result["left_out"] else "Nothing.",
        "## What runs",
        _table(("kernel", "runs on"), result["backends"].items()),
        "## Bytes per second",
        _table(
            ("model", "kernel", "tokens", "adapters", "GB/s", "share of a copy (quartiles)"),
            (
                (
                    *(row["model"], row["kernel"], row["tokens"], row["adapters"]),
                    _number(row["bytes_per_second"], 1e-9, ".0f", has_range=False),
                    _number(row["share_of_copy"], 1, ".3f"),
                )
                for row in result["bandwidth"]
            ),
        ),
        "## A layer, and a step",
        _table(
            ("model", "layers", "phase", "tokens", "variant", "ms", "× base (quartiles)", "note"),
            (
                (
                    *(row["model"], row["layers"], row["phase"], row["tokens"], row["variant"]),
                    _number(row["seconds"], 1e3, ".3f", has_range=False),
                    _number(row["ratio_to_base"], 1, ".3f"),
                    row["note"],
                )
                for row in result["decoding"]
            ),
        ),
        "## Resident adapters",
        _table(
            ("model", "adapters (Q, K, V)", "bank", "GiB", "last one scales as it should"),
            (
                (
                    *(row["model"], row["adapters"], row["dtype"]),
                    *(f"{row['bytes'] / 2**30:.2f}", "yes" if row["is_last_right"] else "no"),
                )
                for row in result["bank"]
            ),
        ),
        "## Whole engines of vLLM",
        _table(
            ("engine", "tokens/s", "× without adapters (quartiles)", "note"),
            (
                (
                    row["variant"],
                    _number(row["tokens_per_second"], 1, ".0f", has_range=False),
                    _number(row["ratio_to_base"], 1, ".3f"),
                    row["note"],
                )
                for row in result["engine"]
            ),
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _number(value: Any, factor: float, form: str, *, has_range: bool = True) -> str:
    if value == NOT_MEASURED:
        return NOT_MEASURED
    if not isinstance(value, dict):
        return format(value * factor, form)
    median, low, high = (format(value[key] * factor, form) for key in ("median", "low", "high"))
    return f"{median} ({low}–{high})" if has_range else median


def _table(header: Iterable[Any], rows: Iterable[Iterable[Any]]) -> str:
    names = list(header)
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
