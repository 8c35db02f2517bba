"""`propulsion cluster submit`, `status`, `logs`, `cancel`, `queue` and `sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cluster.training.tracking import Tracker

RunFile = Annotated[Path, typer.Argument(metavar="RUN.yaml", help="The run file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Replace a setting, as cluster.workers=4."),
]
RunId = Annotated[str, typer.Argument(metavar="ID", help="What `submit` printed.")]
Queue = Annotated[
    Path | None,
    typer.Option(
        envvar="PROPULSION_QUEUE",
        metavar="FOLDER",
        help="Folder of a queue, on a file system that all nodes share.",
    ),
]
Address = Annotated[
    str,
    typer.Option(
        envvar="RAY_API_SERVER_ADDRESS", metavar="URL", help="Dashboard of the Ray cluster's head."
    ),
]
Python = Annotated[
    str | None,
    typer.Option(
        help="Python on the head that has propulsion installed; by default this one's path."
    ),
]
HEAD = "http://127.0.0.1:8265"


def submit(
    run_file: RunFile,
    overrides: Overrides = None,
    queue: Queue = None,
    address: Address = HEAD,
    python: Python = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Print the run's log until it ends.")
    ] = False,
) -> None:
    """Train a run on a Ray cluster; this process need not stay.

    With --queue the run waits there until its team's quota and the cluster have room. Without, Ray
    gets it at once.
    """
    from cluster.training.submission import checked_run, submit_job
    from cluster.training.tracking import Tracker

    run = checked_run(run_file, overrides)
    tracker = Tracker(address, python, queue)
    run_id = submit_job(run, tracker.jobs) if tracker.queue is None else tracker.queue.submit(run)
    typer.echo(run_id)
    if follow:
        _follow(tracker, run_id)


def status(
    run_id: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="Of one run; all if not given.")
    ] = None,
    queue: Queue = None,
    address: Address = HEAD,
) -> None:
    """What becomes of the runs that were submitted."""
    from cluster.training.tracking import Tracker, print_statuses

    tracker = Tracker(address, None, queue)
    print_statuses(tracker.statuses() if run_id is None else [tracker.status(run_id)])


def logs(
    run_id: RunId,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the run ends.")
    ] = False,
    queue: Queue = None,
    address: Address = HEAD,
) -> None:
    """What a run has printed."""
    from cluster.training.tracking import Tracker

    tracker = Tracker(address, None, queue)
    if follow:
        _follow(tracker, run_id)
    else:
        typer.echo(tracker.logs(run_id), nl=False)


def _follow(tracker: Tracker, run_id: str) -> None:
    try:
        tracker.follow(run_id)
    except KeyboardInterrupt:
        typer.echo(f"{run_id} goes on; `propulsion cluster cancel` ends it", err=True)
        raise typer.Exit(130) from None


def cancel(run_id: RunId, queue: Queue = None, address: Address = HEAD) -> None:
    """End a run, or take it from the queue. Its checkpoints stay."""
    from cluster.training.tracking import Tracker

    typer.echo(Tracker(address, None, queue).cancel(run_id))


def queue(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Of the queue.")],
    address: Address = HEAD,
    python: Python = None,
    metrics_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port of /metrics; 0 picks one.")
    ] = None,
    metrics_host: Annotated[
        str, typer.Option(help="Address of /metrics; 0.0.0.0 lets other hosts read it.")
    ] = "127.0.0.1",
    poll_seconds: Annotated[
        float, typer.Option(min=0.1, help="Time between looks at the queue.")
    ] = 2.0,
) -> None:
    """Give the runs of a queue to Ray, until interrupted; jobs that run go on then."""
    import sys

    from cluster.training.dispatcher import Dispatcher, only_dispatcher
    from cluster.training.queue_folder import QueueFolder
    from cluster.training.queue_metrics import QueueMetrics
    from cluster.training.ray_jobs import RayJobs

    runs = QueueFolder(folder)
    runs.config()
    jobs = RayJobs(address, python or sys.executable)
    with only_dispatcher(runs):
        metrics = None if metrics_port is None else QueueMetrics(metrics_port, metrics_host)
        if metrics is not None:
            typer.echo(f"metrics at http://{metrics_host}:{metrics.port}/metrics")
        typer.echo(f"runs of {runs.folder} go to {address}")
        try:
            Dispatcher(runs, jobs, typer.echo, metrics).run(poll_seconds)
        except KeyboardInterrupt:
            typer.echo("interrupted; jobs go on, and the queue waits for the next dispatcher")
            raise typer.Exit(130) from None
        finally:
            if metrics is not None:
                metrics.close()


def sweep(
    run_file: RunFile,
    overrides: Overrides = None,
    trials: Annotated[
        int | None, typer.Option(min=2, help="Draw so many combinations; all if not given.")
    ] = None,
    concurrent: Annotated[
        int | None,
        typer.Option(min=1, help="Trials at once; as many as there is room for if not given."),
    ] = None,
    grace_steps: Annotated[
        int | None,
        typer.Option(min=1, help="Stop no trial before; its first evaluation if not given."),
    ] = None,
    reduction_factor: Annotated[
        float, typer.Option(min=1.1, help="One trial in so many goes on at each rung (ASHA).")
    ] = 3,
) -> None:
    """Try the combinations of a run file's `sweep` with Ray Tune, and publish the best one.

    Each is a trial on one rank; ASHA stops those that are behind. `propulsion train` instead trains
    all of them together, to the end.
    """
    from cluster.training.sweep import sweep as run_sweep
    from cluster.training.sweep_table import print_sweep
    from trainer.config import load_run

    run = load_run(run_file, overrides)
    result = run_sweep(
        run,
        num_trials=trials,
        concurrent=concurrent,
        grace_steps=grace_steps,
        reduction_factor=reduction_factor,
    )
    print_sweep(run.name, result)
