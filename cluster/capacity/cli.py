"""`propulsion cluster measure` and `simulate`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from cluster.capacity.options import HostAdapters, Slots, TimesFile


def measure(
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the times go, as JSON.")],
    base: Annotated[Path, typer.Option(metavar="FOLDER", help="The base model to serve.")],
    replicas: Annotated[
        int, typer.Option(min=1, help="Replicas that share this machine; all are loaded.")
    ] = 1,
    own_core: Annotated[
        bool, typer.Option(help="Bind each replica to one processor core; CPU only.")
    ] = False,
    dtype: Annotated[str, typer.Option(help="Activations of the base, as for serve.")] = "auto",
    max_adapters: Annotated[int, typer.Option(min=1, help="Most adapters of a batch.")] = 32,
    max_cpu_adapters: Annotated[int, typer.Option(min=1, help="Adapters in host memory.")] = 96,
    max_num_seqs: Annotated[int, typer.Option(min=1, help="Most sequences of a batch.")] = 32,
    max_num_batched_tokens: Annotated[
        int, typer.Option(min=64, help="Most tokens of a step.")
    ] = 2048,
    max_model_len: Annotated[int, typer.Option(min=8, help="Longest prompt and answer.")] = 512,
    concurrency: Annotated[
        list[int] | None, typer.Option(min=1, help="Requests at once; repeatable.")
    ] = None,
    prompt_tokens: Annotated[
        list[int] | None, typer.Option(min=1, help="Prompt lengths; repeatable.")
    ] = None,
    output_tokens: Annotated[
        list[int] | None, typer.Option(min=2, help="Answer lengths; repeatable.")
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="How often each load is measured.")] = 5,
) -> None:
    """Measure what a replica takes on this machine, for `plan serving` and `simulate`.

    Starts real servers with random adapters of the base, sends them loads, and fits the parts of an
    engine step. Run it on the machine, with the device and the base, that are to serve.
    """
    import asyncio

    from rich.console import Console

    from cluster.capacity.measuring.interruption import interrupted_by_terminate
    from cluster.capacity.measuring.measure import Grid, check_options
    from cluster.capacity.measuring.measure import measure as measure_replicas
    from cluster.capacity.measuring.probe_adapters import publish_probes
    from cluster.capacity.measuring.servers import ServerOptions, running_replicas
    from cluster.capacity.report import print_times
    from propulsion.errors import ConfigError

    if not out.absolute().parent.is_dir():
        raise ConfigError(f"--out {out}: its folder does not exist; make it first")
    if not base.is_dir():
        raise ConfigError(f"--base {base}: there is no such folder")
    default = Grid()
    grid = Grid(
        tuple(concurrency or default.concurrency),
        tuple(prompt_tokens or default.prompt_tokens),
        tuple(output_tokens or default.output_tokens),
        repeats,
    )
    console = Console()
    with tempfile.TemporaryDirectory() as place, interrupted_by_terminate():
        folder = Path(place)
        options = ServerOptions(
            base=base,
            store=folder / "store",
            max_adapters=max_adapters,
            max_cpu_adapters=max_cpu_adapters,
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=max_num_batched_tokens,
            max_model_len=max_model_len,
            dtype=dtype,
            own_core=own_core,
        )
        check_options(options, grid)
        with console.status("publishing adapters") as status:
            names = publish_probes(base, options.store, 2 * max_cpu_adapters)
            status.update("starting replicas")
            with running_replicas(options, replicas, folder / "logs") as running:
                times = asyncio.run(measure_replicas(running, options, grid, names, status.update))
    out.write_text(times.model_dump_json(indent=1) + "\n", encoding="utf-8")
    print_times(times, console)


def simulate(
    times: TimesFile,
    replicas: Annotated[int, typer.Option(min=1, help="Replicas that serve.")] = 2,
    adapters: Annotated[int, typer.Option(min=1, help="Adapters asked for.")] = 1000,
    requests: Annotated[int, typer.Option(min=10, help="Requests in all.")] = 20_000,
    requests_per_second: Annotated[float, typer.Option(min=1e-3, help="Their arrivals.")] = 10.0,
    zipf_exponent: Annotated[float, typer.Option(min=0.0, help="Popularity of adapters.")] = 1.0,
    prompt_tokens: Annotated[float, typer.Option(min=1, help="Mean of a prompt.")] = 64,
    output_tokens: Annotated[float, typer.Option(min=1, help="Mean of an answer.")] = 32,
    length_sigma: Annotated[float, typer.Option(min=0.0, help="Spread of lengths.")] = 0.5,
    policy: Annotated[
        list[str] | None,
        typer.Option(help="affinity, round_robin or two_choices; repeatable, by default all."),
    ] = None,
    slots: Slots = None,
    host_adapters: HostAdapters = None,
    seed: Annotated[int, typer.Option(help="Equal seeds give equal results.")] = 0,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write the results there.")
    ] = None,
) -> None:
    """Simulate a fleet under Zipf traffic, with the gateway's own router."""
    import json

    from rich.console import Console

    from cluster.capacity.report import outcome_summary, print_outcomes
    from cluster.capacity.simulation.scenario import Scenario
    from cluster.capacity.simulation.simulate import simulate as run
    from cluster.capacity.simulation.traffic import Lengths, Rate
    from cluster.capacity.times import read_times, with_places
    from propulsion.errors import ConfigError

    if json_file is not None and not json_file.absolute().parent.is_dir():
        raise ConfigError(f"--json {json_file}: its folder does not exist; make it first")
    measured = with_places(read_times(times), slots=slots, host_adapters=host_adapters)
    console, found = Console(), {}
    with console.status("simulating") as status:
        for name in policy or ["affinity", "round_robin", "two_choices"]:
            status.update(f"simulating {name}")
            scenario = Scenario(
                times=measured,
                replicas=replicas,
                policy=name,
                num_requests=requests,
                rate=Rate((requests_per_second,)),
                num_adapters=adapters,
                zipf_exponent=zipf_exponent,
                prompt=Lengths(prompt_tokens, length_sigma),
                output=Lengths(output_tokens, length_sigma),
                seed=seed,
            )
            found[name] = outcome_summary(run(scenario))
    print_outcomes(found, console)
    if json_file is not None:
        json_file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
