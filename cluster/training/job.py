"""The entry point of a Ray job: `python -m cluster.training.job JOB.json`."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

from cluster.training.spec import JobSpec, Member, read_spec
from propulsion.errors import PropulsionError
from trainer.result import RunResult, write_result

ADAPTERS = "adapters"


def run_job(spec: JobSpec) -> RunResult:
    """Train a job's run on the cluster that this process belongs to, and give out the results."""
    from cluster.training.ray_train import train_on_ray

    result = train_on_ray(spec.run, capacity=spec.capacity)
    for member in spec.members:
        give_out(result, member, spec.run.output_dir)
    return result


def give_out(result: RunResult, member: Member, output_dir: Path) -> None:
    """Write a packed run's part of a result to its own folder.

    Args:
        result: of the job.
        member: the packed run.
        output_dir: of the job.
    """
    own = tuple(one for one in result.adapters if one.name in member.adapters)
    member.output_dir.mkdir(parents=True, exist_ok=True)
    for one in own:
        source = output_dir / ADAPTERS / one.name
        target = member.output_dir / ADAPTERS / one.name
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
    steps = max((one.steps for one in own), default=0)
    write_result(replace(result, name=member.name, adapters=own, steps=steps), member.output_dir)


def main() -> None:
    """Train what the file names; what a user did wrong is told in one line, with exit code 2."""
    from trainer.report import print_result

    try:
        print_result(run_job(read_spec(Path(sys.argv[1]))))
    except PropulsionError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
