"""The files that a comparison leaves."""

from __future__ import annotations

import json
import os
from pathlib import Path

from trainer.comparison.comparing import Comparison, Request, compare


def compare_and_write(request: Request) -> Comparison:
    """Compare, and write `comparison.json`, `comparison.md` and plots after each method.

    Raises:
        ConfigError, DataError: as `compare`.
    """
    from rich.console import Console

    from trainer.comparison.plots import draw
    from trainer.comparison.provenance import provenance
    from trainer.comparison.table import markdown, tree

    console = Console(stderr=True)
    made_with = provenance()

    def write(comparison: Comparison) -> None:
        write_text(
            request.out / "comparison.json",
            json.dumps(tree(comparison, made_with), indent=1) + "\n",
        )
        write_text(request.out / "comparison.md", markdown(comparison, made_with))

    comparison = compare(request, lambda line: console.print(line, highlight=False), write)
    draw(comparison, request.out)
    print(markdown(comparison, made_with))
    return comparison


def write_text(path: Path, text: str) -> None:
    """Write a file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.rename(path)
