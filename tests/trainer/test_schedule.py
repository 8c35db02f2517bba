import pytest

from trainer.config import TrainingSection
from trainer.schedule import learning_rate


def rates(schedule: str) -> list[float]:
    training = TrainingSection(steps=100, lr=2.0, warmup_ratio=0.1, schedule=schedule)
    return [learning_rate(training, step) for step in range(100)]


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_rate_warms_up_to_its_peak(schedule: str) -> None:
    warmup = rates(schedule)[:10]
    assert warmup == pytest.approx([0.2 * step for step in range(1, 11)])


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_rate_falls_towards_zero(schedule: str) -> None:
    falling = rates(schedule)[10:]
    assert falling == sorted(falling, reverse=True)
    assert falling[0] == 2.0
    assert 0 < falling[-1] < 0.05


def test_constant_rate_stays() -> None:
    assert set(rates("constant")[10:]) == {2.0}
