"""`propulsion plan`: what a training run needs, and what serving needs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from cluster.capacity.options import HostAdapters, Slots, TimesFile
from cluster.capacity.planning.demand import ServingDemand, serving_demand
from trainer.planning.cli import plan as plan_training

_TRAINING = "training"


class _RunFileFirst(TyperGroup):
    """A group whose command may be left out: `plan RUN.yaml` is `plan training RUN.yaml`."""

    def parse_args(self, context: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("--help", "-h"):
            args = [_TRAINING, *args]
        return super().parse_args(context, args)


app = typer.Typer(
    cls=_RunFileFirst,
    no_args_is_help=True,
    help="What a training run (RUN.yaml) or a serving fleet needs, before a GPU is rented.",
)
app.command(_TRAINING)(plan_training)


_USUAL = {name: field.default for name, field in ServingDemand.model_fields.items()}


def _told(field: str) -> str:
    return ServingDemand.model_fields[field].description or ""


@app.command("serving")
def plan_serving_command(
    times: TimesFile,
    adapters: Annotated[int, typer.Option(help=_told("adapters"))],
    requests_per_second: Annotated[float, typer.Option(help=_told("requests_per_second"))],
    prompt_tokens: Annotated[float, typer.Option(help=_told("prompt_tokens"))],
    output_tokens: Annotated[float, typer.Option(help=_told("output_tokens"))],
    ttft_p99_seconds: Annotated[float, typer.Option(help=_told("ttft_p99_seconds"))],
    inter_token_p99_seconds: Annotated[float, typer.Option(help=_told("inter_token_p99_seconds"))],
    zipf_exponent: Annotated[float, typer.Option(help=_told("zipf_exponent"))] = _USUAL[
        "zipf_exponent"
    ],
    length_sigma: Annotated[float, typer.Option(help=_told("length_sigma"))] = _USUAL[
        "length_sigma"
    ],
    headroom: Annotated[float, typer.Option(help=_told("headroom"))] = _USUAL["headroom"],
    price_per_replica_hour: Annotated[
        float | None, typer.Option(help=_told("price_per_replica_hour"))
    ] = None,
    slots: Slots = None,
    host_adapters: HostAdapters = None,
    seed: Annotated[int, typer.Option(help="Of the simulated traffic.")] = 0,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Also write the plan there; memory in bytes."),
    ] = None,
) -> None:
    """Replicas and GPUs for adapters, traffic and promised latencies.

    Nothing is guessed of a device: the times come from a measurement on it. The fleet is simulated
    with the gateway's own router, for the least number of replicas that keeps what is promised.
    """
    from rich.console import Console

    from cluster.capacity.planning.plan import FleetForecast, plan_serving
    from cluster.capacity.planning.table import print_serving_plan
    from cluster.capacity.times import read_times, with_places
    from propulsion.errors import ConfigError

    if json_file is not None and not json_file.absolute().parent.is_dir():
        raise ConfigError(f"--json {json_file}: its folder does not exist; make it first")
    demand = serving_demand(
        adapters=adapters,
        requests_per_second=requests_per_second,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        ttft_p99_seconds=ttft_p99_seconds,
        inter_token_p99_seconds=inter_token_p99_seconds,
        zipf_exponent=zipf_exponent,
        length_sigma=length_sigma,
        headroom=headroom,
        price_per_replica_hour=price_per_replica_hour,
    )
    measured = with_places(read_times(times), slots=slots, host_adapters=host_adapters)
    console = Console()
    with console.status("simulating") as status:

        def tell(tried: FleetForecast) -> None:
            status.update(f"{tried.replicas:,} replicas: {tried.ttft_p99:.3f} s to first token")

        made = plan_serving(demand, measured, seed=seed, tell=tell)
    print_serving_plan(made, console)
    if json_file is not None:
        json_file.write_text(json.dumps(made.to_json(), indent=1) + "\n", encoding="utf-8")
