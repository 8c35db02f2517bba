import pytest

from cluster.serving.recovery import Recovery


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def seen() -> list[float]:
    return []


@pytest.fixture
def recovery(clock, seen) -> Recovery:
    recovery = Recovery(seen.append, clock)
    recovery.update(2)
    return recovery


def test_a_recovery_lasts_from_the_first_sign_until_as_many_run_as_before(recovery, clock, seen):
    clock.now = 10
    recovery.lost()
    clock.now = 12
    recovery.lost()
    for clock.now, running in ((13, 2), (15, 1), (40, 1), (50, 2), (60, 2)):
        recovery.update(running)
    assert seen == [40]


def test_scaling_down_is_no_loss(recovery, clock, seen):
    recovery.update(1, is_planned=True)
    recovery.update(2)
    assert seen == []


def test_a_loss_that_no_request_met_is_timed_too(recovery, clock, seen):
    for clock.now, running in ((5, 1), (20, 1), (35, 2)):
        recovery.update(running)
    assert seen == [30]


def test_a_change_of_what_is_wanted_ends_the_timing(recovery, clock, seen):
    recovery.lost()
    recovery.update(1)
    recovery.update(1, is_planned=True)
    recovery.update(2)
    assert seen == []


def test_the_next_loss_is_timed_anew(recovery, clock, seen):
    for start in (10, 100):
        clock.now = start
        recovery.lost()
        recovery.update(1)
        clock.now = start + 7
        recovery.update(2)
    assert seen == [7, 7]
