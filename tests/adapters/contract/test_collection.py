"""What garbage collection takes and leaves wherever the store is."""

from datetime import timedelta
from pathlib import Path

import pytest

from adapters import AdapterStore
from propulsion.errors import AdapterNotFoundError, ConfigError
from tests.adapters.contract.place import Place

NOW = timedelta()


@pytest.fixture(autouse=True)
def six_versions(store: AdapterStore, adapter: Path) -> None:
    """The store holds a@v1 to a@v6, and b@v1."""
    for _ in range(6):
        store.publish(adapter, "a")
    store.publish(adapter, "b")


def references(store: AdapterStore) -> list[str]:
    return [version.reference for version in store.list()]


def test_what_nothing_names_goes_beyond_the_last(store: AdapterStore, place: Place) -> None:
    store.set_alias("a", "prod", "v1")
    store.set_split("a", "canary", {"v2": 1, "v6": 1})
    report = store.gc(keep_last=2, min_age=NOW)
    assert [removed.what for removed in report.removed] == ["a@v3", "a@v4"]
    assert report.num_bytes > 0
    assert references(store) == ["a@v1", "a@v2", "a@v5", "a@v6", "b@v1"]
    assert not place.paths("a/v3")
    for version in store.list():
        store.verify(version)
    with pytest.raises(AdapterNotFoundError):
        store.resolve("a@v3")


def test_dry_run_says_the_same_and_removes_nothing(store: AdapterStore) -> None:
    before = references(store)
    report = store.gc(keep_last=1, min_age=NOW, dry_run=True)
    assert references(store) == before
    assert report.dry_run
    assert store.gc(keep_last=1, min_age=NOW).removed == report.removed


def test_young_versions_stay(store: AdapterStore) -> None:
    assert store.gc(keep_last=1).removed == ()
    assert len(references(store)) == 7


def test_other_names_stay(store: AdapterStore) -> None:
    assert store.gc(keep_last=1, min_age=NOW, names=["b"]).removed == ()
    with pytest.raises(AdapterNotFoundError):
        store.gc(names=["c"])


def test_damaged_version_stays(store: AdapterStore, place: Place) -> None:
    place.write("a/v1/manifest.json", b"{")
    store.gc(keep_last=1, min_age=NOW)
    assert references(store) == ["a@v1", "a@v6", "b@v1"]


def test_parent_goes(store: AdapterStore, adapter: Path) -> None:
    store.publish(adapter, "a", parent="a@v1")
    store.gc(keep_last=1, min_age=NOW)
    assert references(store) == ["a@v7", "b@v1"]
    assert store.resolve("a").manifest.parent == "a@v1"


def test_numbers_are_not_given_again(store: AdapterStore, adapter: Path) -> None:
    store.gc(keep_last=1, min_age=NOW)
    assert store.publish(adapter, "a").reference == "a@v7"


@pytest.mark.parametrize("options", [{"keep_last": 0}, {"min_age": timedelta(seconds=-1)}])
def test_senseless_limits_are_refused(store: AdapterStore, options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        store.gc(**options)  # type: ignore[arg-type]
