"""Which queued run starts next: priority, quota, room."""

import pytest

from cluster.training.queue_config import Capacity, QueueConfig, TeamQuota
from cluster.training.queue_folder import QueuedRun, RunState
from cluster.training.quotas import in_order, next_to_start, why_never
from trainer.config import ClusterSection, RunConfig

CONFIG = QueueConfig(
    teams={"search": TeamQuota(gpus=4), "ads": TeamQuota(gpus=None, cpus=2), "free": TeamQuota()}
)
GPUS = Capacity(gpus=8, cpus=64)
CPUS = Capacity(cpus=4)


def queued(name: str, submitted: float = 0.0, state: str = "queued", **cluster) -> QueuedRun:
    run = RunConfig.model_construct(name=name, cluster=ClusterSection(**cluster))
    return QueuedRun(name, submitted, run, RunState(state=state), False)


def started(waiting: list[QueuedRun], running: list[dict], capacity: Capacity) -> str | None:
    jobs = [ClusterSection(**one) for one in running]
    first = next_to_start(in_order(waiting), jobs, CONFIG, capacity)
    return first and first.id


def test_priority_goes_before_age_and_age_before_name() -> None:
    runs = [
        queued("late", 3),
        queued("b", 1),
        queued("a", 2),
        queued("urgent", 4, priority=5),
        queued("done", 0, state="succeeded"),
        queued("background", 0, priority=-1),
    ]
    assert [one.id for one in in_order(runs)] == ["urgent", "b", "a", "late", "background"]


def test_a_run_that_its_quota_holds_back_lets_other_teams_pass() -> None:
    waiting = [
        queued("first", 1, workers=2, team="search"),
        queued("second", 2, workers=2, team="free"),
    ]
    busy = [{"workers": 3, "team": "search"}]
    assert started(waiting, busy, GPUS) == "second"
    assert started(waiting, [{"workers": 2, "team": "search"}], GPUS) == "first"


def test_a_large_run_that_waits_for_room_is_not_starved_by_small_ones() -> None:
    waiting = [queued("large", 1, workers=6, team="free"), queued("small", 2, team="free")]
    busy = [{"workers": 4, "team": "free"}]
    assert started(waiting, busy, GPUS) is None
    assert started(waiting, [], GPUS) == "large"


def test_a_run_larger_than_the_cluster_blocks_nobody() -> None:
    waiting = [
        queued("huge", 1, workers=9, gpus=True, team="free"),
        queued("small", 2, team="free"),
    ]
    assert started(waiting, [], GPUS) == "small"


def test_a_range_of_workers_starts_with_the_least_and_counts_with_the_most() -> None:
    waiting = [queued("elastic", workers=(2, 8), team="free")]
    assert started(waiting, [{"workers": 6, "team": "free"}], GPUS) == "elastic"
    assert started(waiting, [{"workers": (1, 8), "team": "free"}], GPUS) is None
    too_many = [queued("elastic", workers=(2, 8), team="search")]
    assert started(too_many, [], GPUS) is None


def test_cpus_count_where_there_is_no_gpu() -> None:
    waiting = [queued("one", workers=2, team="ads")]
    assert started(waiting, [], CPUS) == "one"
    assert started(waiting, [{"workers": 1, "team": "ads"}], CPUS) is None
    assert started(waiting, [{"workers": 3, "team": "free"}], CPUS) is None


@pytest.mark.parametrize(
    ("cluster", "capacity", "told"),
    [
        ({"workers": 5, "team": "search"}, GPUS, "5 GPUs, and there are 4 in the quota"),
        ({"workers": 9, "team": "free"}, GPUS, "9 CPUs, and there are 4 in the cluster"),
        ({"workers": 9, "gpus": True, "team": "free"}, GPUS, "9 GPUs, and there are 8 in the clus"),
        ({"workers": (1, 9), "team": "free"}, GPUS, None),
    ],
)
def test_what_can_never_start_is_told(cluster: dict, capacity: Capacity, told: str | None) -> None:
    capacity = CPUS if cluster["workers"] == 9 and "gpus" not in cluster else capacity
    section = ClusterSection(**cluster)
    why = why_never(section, CONFIG.teams[section.team], capacity)
    assert (why is None) == (told is None)
    assert (told or "") in (why or "")
