"""One run of `propulsion inspect`: from a saved adapter to a table and files."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from propulsion.analysis.inspection import NEAR_ONE, by_kind, read_modules, summarize
from propulsion.analysis.staging import staged


def inspect_adapter(
    folder: Path, *, every: bool = False, plot: Path | None = None, json_file: Path | None = None
) -> None:
    """Print a table of a saved adapter's z and effective scales, and write files if asked to.

    Args:
        folder: a PEFT folder.
        every: a row for each layer, not for each kind.
        plot: a PNG with the distribution of z.
        json_file: the same numbers, for kinds and for layers.

    Raises:
        AdapterCorruptError: the folder does not hold a Propulsion adapter, or it is broken.
        ConfigError: a file cannot be written.
    """
    from rich.console import Console

    from propulsion.analysis.tables import scales_table

    modules = read_modules(folder)
    kinds = by_kind(modules)
    total = summarize("total", modules)
    of_kinds = [summarize(kind, members) for kind, members in kinds.items()]
    of_modules = [summarize(module.name, [module]) for module in modules]
    if json_file is not None:
        numbers = {
            "adapter": str(folder),
            "near_one": NEAR_ONE,
            "total": asdict(total),
            "kinds": [asdict(row) for row in of_kinds],
            "modules": [asdict(row) for row in of_modules],
        }
        with staged(json_file.parent) as temporary:
            text = json.dumps(numbers, indent=1, allow_nan=False)
            (temporary / json_file.name).write_text(text, "utf-8")
    if plot is not None:
        from propulsion.analysis.scale_plot import draw_scales

        with staged(plot.parent) as temporary:
            draw_scales(kinds, f"Distribution of z in {folder.name}", temporary / plot.name)
    Console().print(scales_table(of_modules if every else of_kinds, total, str(folder)))
