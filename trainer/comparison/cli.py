"""`propulsion compare` and `propulsion ablate`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from trainer.cli import Overrides, RunFile

Seeds = Annotated[str, typer.Option(metavar="N,N", help="Each is a run of its own.")]
Out = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="Results; beside output_dir if not given.")
]
_METHODS = (
    "propulsion-all,propulsion-attn,propulsion-multi,full,bitfit,prompt-tuning,prefix-tuning,"
    "p-tuning,ia3,lora,adalora,lokr,loha"
)


def compare(
    run_file: RunFile,
    methods: Annotated[
        str, typer.Option(metavar="METHOD,METHOD", help="Which, in the table's order.")
    ] = _METHODS,
    out: Out = None,
    seeds: Seeds = "0",
    lr: Annotated[
        list[str] | None,
        typer.Option(metavar="METHOD=RATE", help="Learning rate of a method; not chosen then."),
    ] = None,
    lrs: Annotated[
        str,
        typer.Option(
            metavar="RATE,RATE",
            help="Train each method at each rate, and take the best on held-out records.",
        ),
    ] = "",
    hold_out: Annotated[
        float, typer.Option(min=0.001, max=0.9, help="Share of the training records (with --lrs).")
    ] = 0.1,
    overrides: Overrides = None,
) -> None:
    """Train other methods of fine-tuning beside Propulsion, on the same data and budget.

    Writes comparison.md, comparison.json and three plots. The same command continues what was cut
    off; what is finished is not run again.
    """
    from trainer.comparison.comparing import Request
    from trainer.comparison.methods import chosen_methods
    from trainer.comparison.output import compare_and_write
    from trainer.config import load_run

    run = load_run(run_file, overrides)
    chosen = chosen_methods(_listed(methods))
    request = Request(
        run=run,
        methods=chosen,
        seeds=[_whole(seed) for seed in _listed(seeds)],
        out=(out or run.output_dir.with_name(f"{run.output_dir.name}-compared")).absolute(),
        rates=[_rate(rate) for rate in _listed(lrs)],
        own_rates=_own_rates(lr or []),
        holdout_share=hold_out,
    )
    _stopping_cleanly(lambda: compare_and_write(request))


def ablate(
    run_file: RunFile,
    only: Annotated[
        str, typer.Option(metavar="NAME,NAME", help="Which ablations; all if not given.")
    ] = "",
    degrees: Annotated[
        str, typer.Option(metavar="K,K", help="Degrees that are tried.")
    ] = "1,5,15,25,35,55",
    together: Annotated[
        int, typer.Option(min=1, help="Most adapters that are trained at a time.")
    ] = 16,
    out: Out = None,
    seeds: Seeds = "0",
    overrides: Overrides = None,
) -> None:
    """Vary one setting of Propulsion at a time: degree, position, init, layers, vectors, pooling.

    All variants are adapters that are trained together over one base. Writes ablation.md,
    ablation.json and a plot for each ablation. The same command continues what was cut off.
    """
    from trainer.comparison.ablation_output import ablate_and_write
    from trainer.config import load_run

    run = load_run(run_file, overrides)
    folder = (out or run.output_dir.with_name(f"{run.output_dir.name}-ablated")).absolute()
    _stopping_cleanly(
        lambda: ablate_and_write(
            run,
            folder,
            names=_listed(only),
            degrees=[_whole(degree) for degree in _listed(degrees)],
            seeds=[_whole(seed) for seed in _listed(seeds)],
            together=together,
        )
    )


def _stopping_cleanly(work: Callable[[], object]) -> None:
    try:
        work()
    except KeyboardInterrupt:
        typer.echo("interrupted; the same command continues", err=True)
        raise typer.Exit(130) from None


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no whole number") from None


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < float("inf"):
        raise typer.BadParameter(f"{text!r} is no learning rate")
    return rate


def _own_rates(settings: list[str]) -> dict[str, float]:
    from trainer.comparison.methods import chosen_methods

    rates = {}
    for setting in settings:
        name, separator, rate = setting.partition("=")
        if not separator:
            raise typer.BadParameter(f"--lr takes METHOD=RATE, got {setting!r}")
        chosen_methods([name])
        rates[name] = _rate(rate)
    return rates
