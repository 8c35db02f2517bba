"""`propulsion plan`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def plan(
    run_file: Annotated[Path, typer.Argument(metavar="RUN.yaml", help="The run file.")],
    gpus_per_node: Annotated[int, typer.Option(min=1, help="GPUs of each node.")] = 8,
    nodes: Annotated[int, typer.Option(min=1, help="Nodes.")] = 1,
    base: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Folder with the base's config.json, if not the run's own."
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Replace a setting, as deepspeed.stage=3."),
    ] = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Also write the plan there; memory in bytes."),
    ] = None,
) -> None:
    """Parameters and memory of a run, from its base's configuration alone.

    No weight is loaded and no data is read.
    """
    from rich.console import Console

    from propulsion.errors import ConfigError
    from trainer.config import load_run
    from trainer.planning.plan import make_plan
    from trainer.planning.table import print_plan

    if json_file is not None and not json_file.absolute().parent.is_dir():
        raise ConfigError(f"--json {json_file}: its folder does not exist; make it first")
    made = make_plan(
        load_run(run_file, overrides), gpus_per_node=gpus_per_node, nodes=nodes, base=base
    )
    print_plan(made, Console())
    if json_file is not None:
        json_file.write_text(json.dumps(made.to_json(), indent=1) + "\n", encoding="utf-8")
