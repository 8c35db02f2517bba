"""Which queued run may start now: by priority, quota and what the cluster has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cluster.training.queue_config import Capacity, QueueConfig, TeamQuota
from cluster.training.queue_folder import QueuedRun
from trainer.config import ClusterSection


@dataclass(frozen=True)
class Demand:
    """What a run occupies."""

    cpus: float = 0.0
    gpus: float = 0.0

    def __add__(self, other: Demand) -> Demand:
        return Demand(self.cpus + other.cpus, self.gpus + other.gpus)

    def lacks(self, limit: TeamQuota | Capacity) -> str | None:
        """What a limit has too little of for it, or None if it fits."""
        for kind, wanted in (("GPUs", self.gpus), ("CPUs", self.cpus)):
            has = getattr(limit, kind.lower())
            if has is not None and wanted > has:
                return f"{wanted:g} {kind}, and there are {has:g}"
        return None


def demand(section: ClusterSection, workers: int, capacity: Capacity) -> Demand:
    """What so many ranks occupy on a cluster of that capacity.

    As in training, a run that does not say takes GPUs where there are enough of them.
    """
    use_gpus = section.gpus
    if use_gpus is None:
        use_gpus = capacity.gpus >= section.min_workers
    return Demand(section.cpus_per_worker * workers, workers if use_gpus else 0)


def why_never(section: ClusterSection, quota: TeamQuota, capacity: Capacity) -> str | None:
    """Why a run cannot start however long it waits, or None if it can."""
    lacks = demand(section, section.max_workers, capacity).lacks(quota)
    if lacks is not None:
        return f"it asks for {lacks} in the quota of team {section.team!r}"
    lacks = demand(section, section.min_workers, capacity).lacks(capacity)
    return None if lacks is None else f"it asks for {lacks} in the cluster"


def in_order(runs: Iterable[QueuedRun]) -> list[QueuedRun]:
    """Queued runs, the one to start first first: by priority, then by age."""
    waiting = [one for one in runs if one.state.state == "queued" and not one.is_cancelled]
    return sorted(waiting, key=lambda one: (-one.run.cluster.priority, one.submitted, one.id))


def next_to_start(
    waiting: Sequence[QueuedRun],
    jobs: Iterable[ClusterSection],
    config: QueueConfig,
    capacity: Capacity,
) -> QueuedRun | None:
    """The first of the waiting runs that may start, or None.

    A run that its team's quota holds back lets others pass, as does one that is larger than the
    whole cluster. One that waits for room does not: what becomes free is kept for it, so that
    small runs cannot starve a large one.

    Args:
        waiting: in the order of `in_order`.
        jobs: what the running jobs asked for; one that can grow counts with all it may take.
        config: teams and quotas.
        capacity: of the cluster.
    """
    taken, of_team = Demand(), dict.fromkeys(config.teams, Demand())
    for job in jobs:
        wanted = demand(job, job.max_workers, capacity)
        taken += wanted
        of_team[job.team] = of_team.get(job.team, Demand()) + wanted
    for one in waiting:
        section = one.run.cluster
        quota = config.teams.get(one.team)
        if quota is None or why_never(section, quota, capacity) is not None:
            continue
        most = demand(section, section.max_workers, capacity)
        if (of_team[one.team] + most).lacks(quota) is not None:
            continue
        least = demand(section, section.min_workers, capacity)
        return one if (taken + least).lacks(capacity) is None else None
    return None
