"""Copies of remote versions: fetched once, kept to a size, never taken from who holds them."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from adapters import AdapterStore
from propulsion.errors import AdapterNotFoundError, ConfigError, PropulsionError
from tests.adapters.contract.place import Place
from tests.adapters.folders import DELTA, write_adapter
from tests.adapters.processes import output, start
from tests.adapters.s3 import S3Server

PULL = """
    import sys
    from adapters import AdapterStore
    store = AdapterStore(sys.argv[1], cache=sys.argv[2], cache_bytes=int(sys.argv[3]))
    for _ in range(3):
        for version in store.list():
            with store.hold(version) as held:
                assert (held.path / "adapter_model.safetensors").stat().st_size > 40_000
"""
HOLD = """
    import sys
    from adapters import AdapterStore
    with AdapterStore(sys.argv[1], cache=sys.argv[2]).hold("a@v1") as held:
        print(held.path, flush=True)
        sys.stdin.read()
"""
BYTES = 42_000
"""A little more than one adapter here has."""


@pytest.fixture
def place(bucket: str, tmp_path: Path, store_of_four: Callable[[Place], None]) -> Place:
    """A store in a bucket with a@v1 to a@v4 of 40 kB each."""
    place = Place(f"s3://{bucket}/store", tmp_path / "cache")
    store_of_four(place)
    return place


@pytest.fixture
def store_of_four(tmp_path: Path) -> Callable[[Place], None]:
    def publish(place: Place) -> None:
        for number in range(4):
            weights = {DELTA: np.full((1, 10_000), number, np.float32)}
            place.open().publish(write_adapter(tmp_path / "large", weights), "a")

    return publish


def cached(place: Place) -> set[str]:
    return {path.name for path in place.cache.glob("a/v*")}


def test_version_is_downloaded_once(place: Place, s3_server: S3Server) -> None:
    store = place.open()
    first = store.pull("a")
    asked = len(s3_server.requests)
    assert store.pull("a") == store.verify("a") == first
    assert not any("safetensors" in request for request in s3_server.requests[asked:])
    assert first.path == place.cache / "a" / "v4"
    assert {path.name for path in place.cache.iterdir()} == {"a"}


def test_least_recently_used_version_leaves(place: Place) -> None:
    store = place.open(cache_bytes=3 * BYTES)
    for number, reference in enumerate(["a@v1", "a@v2", "a@v1"]):
        path = store.pull(reference).path
        os.utime(path, (number, number))
    store.pull("a@v3")
    assert cached(place) == {"v1", "v3"}


def test_held_version_stays_whatever_the_limit(place: Place) -> None:
    store = place.open(cache_bytes=BYTES)
    with store.hold("a@v1") as held:
        for number in (2, 3, 4):
            store.pull(f"a@v{number}")
        assert cached(place) == {"v1", "v4"}
        assert (held.path / "adapter_model.safetensors").is_file()
    store.pull("a@v2")
    assert cached(place) == {"v2"}


def test_version_held_by_another_process_stays_until_it_ends(place: Place) -> None:
    holder = start(HOLD, place.url, place.cache)
    assert holder.stdout
    try:
        assert holder.stdout.readline().strip() == str(place.cache / "a" / "v1")
        store = place.open(cache_bytes=BYTES)
        for number in (2, 3):
            store.pull(f"a@v{number}")
        assert cached(place) == {"v1", "v3"}
    finally:
        holder.kill()
        holder.communicate()
    store.pull("a@v4")
    assert cached(place) == {"v4"}


def test_version_larger_than_the_limit_is_kept_alone(place: Place) -> None:
    store = place.open(cache_bytes=1)
    for number in (1, 2):
        store.pull(f"a@v{number}")
    assert cached(place) == {"v2"}


@pytest.mark.slow
def test_processes_share_a_cache_that_is_too_small_for_them(place: Place) -> None:
    for process in [start(PULL, place.url, place.cache, 2 * BYTES) for _ in range(3)]:
        output(process)
    assert not [path for path in place.cache.iterdir() if path.name.startswith(".pull")]


def test_threads_that_pull_one_version_get_the_same_files(place: Place) -> None:
    store, pulled = place.open(), []

    def pull() -> None:
        pulled.append(store.pull("a@v1").path.joinpath("adapter_model.safetensors").read_bytes())

    threads = [threading.Thread(target=pull) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(pulled) == 4
    assert len({*pulled}) == 1
    assert {path.name for path in place.cache.iterdir()} == {"a"}


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete", "link", "extra"])
def test_damaged_copy_is_fetched_again(place: Place, tmp_path: Path, damage: str) -> None:
    store = place.open()
    weights = store.pull("a").path / "adapter_model.safetensors"
    content = weights.read_bytes()
    if damage == "flip":
        weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "truncate":
        weights.write_bytes(content[:-1])
    elif damage == "extra":
        (weights.parent / "adapter_model.bin").write_bytes(b"pickle")
    else:
        weights.unlink()
        if damage == "link":
            (tmp_path / "outside").write_bytes(content)
            weights.symlink_to(tmp_path / "outside")
    with store.hold("a") as held:
        assert (held.path / weights.name).read_bytes() == content
        assert not weights.is_symlink()
        assert len([*held.path.iterdir()]) == 3


def test_copy_of_a_store_that_was_made_anew_is_not_served(place: Place, tmp_path: Path) -> None:
    place.open().pull("a@v1")
    for path in place.paths():
        place.delete(path)
    weights = {DELTA: np.full((1, 3), 7, np.float32)}
    place.open().publish(write_adapter(tmp_path / "other", weights), "a")
    pulled = place.open().pull("a@v1")
    assert pulled.manifest.num_parameters == 3
    assert (pulled.path / "adapter_model.safetensors").stat().st_size < 1000


def test_version_removed_from_the_store_is_not_found(place: Place) -> None:
    store = place.open()
    listed = store.list()[0]
    for path in place.paths("a/v1"):
        place.delete(path)
    with pytest.raises(AdapterNotFoundError, match="not in the store"):
        store.pull(listed)


def test_killed_download_leaves_nothing_for_long(place: Place) -> None:
    abandoned = place.cache / ".pull-1-abc"
    abandoned.mkdir(parents=True)
    (abandoned / "adapter_config.json").write_text("{")
    place.open(cache_bytes=BYTES).pull("a")
    assert not abandoned.exists()


def test_cache_that_cannot_be_written_is_told(place: Place) -> None:
    place.cache.write_text("a file")
    with pytest.raises(PropulsionError, match="Cannot copy a@v4 to the cache"):
        place.open().pull("a")


def test_senseless_limit_is_refused(place: Place) -> None:
    with pytest.raises(ConfigError, match="cache_bytes is 0"):
        place.open(cache_bytes=0)


def test_cache_is_below_the_users_cache_folder_by_default(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    path = AdapterStore(place.url).pull("a").path
    assert path.is_relative_to(tmp_path / "home" / "propulsion" / "store")
    assert AdapterStore(f"{place.url}-2").resolve  # another store, another folder
