import pytest

from propulsion.errors import AdapterCorruptError
from serving.registry.failures import RecentFailures


def test_the_failures_that_are_kept_are_bounded_in_number():
    failures = RecentFailures(lambda: 0.0)
    for i in range(5000):
        failures.add(f"a-{i}@v1", AdapterCorruptError("damaged"))
    kept = dict(failures.items())
    assert len(kept) == 1024
    assert "a-4999@v1" in kept


def test_a_failure_is_raised_anew_each_time():
    failures = RecentFailures(lambda: 0.0)
    error = AdapterCorruptError("damaged")
    failures.add("a@v1", error)
    with pytest.raises(AdapterCorruptError, match="damaged") as raised:
        failures.raise_recent("a@v1")
    assert raised.value is not error
    failures.forget("a@v1")
    failures.raise_recent("a@v1")
