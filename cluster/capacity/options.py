"""Options that several commands about capacity have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

TimesFile = Annotated[
    Path,
    typer.Option(
        metavar="FILE",
        help="Measured times of a replica, as `propulsion cluster measure` writes them.",
    ),
]
Slots = Annotated[int | None, typer.Option(min=1, help="Bank slots in all, if not as measured.")]
HostAdapters = Annotated[
    int | None, typer.Option(min=1, help="Adapters in a replica's host memory, if not as measured.")
]
