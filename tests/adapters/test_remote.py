"""What only a store in a bucket does: two publishers, an absent server, interrupted work."""

import pickle
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adapters import AdapterStore
from adapters.backends import remote_publishing
from propulsion.errors import (
    AdapterCorruptError,
    AdapterNotFoundError,
    ConfigError,
    PropulsionError,
    StoreUnavailableError,
)
from tests.adapters.contract.place import Place
from tests.adapters.folders import DELTA, write_adapter
from tests.adapters.processes import output, start
from tests.adapters.s3 import SECRET_KEY, S3Server

PUBLISH_REPEATEDLY = """
    import sys
    from adapters import AdapterStore
    url, cache, folder, count, marker = sys.argv[1:]
    store = AdapterStore(url, cache=cache)
    for _ in range(int(count)):
        print(store.publish(folder, "a", metrics={"marker": int(marker)}).version, flush=True)
"""
SET_REPEATEDLY = """
    import sys
    from adapters import AdapterStore
    store = AdapterStore(sys.argv[1], cache=sys.argv[2])
    for number in range(8):
        store.set_alias("a", sys.argv[3], f"v{number % 2 + 1}")
        store.set_split("a", sys.argv[3], {"v1": 1, "v2": number + 1})
"""


@pytest.fixture
def place(bucket: str, tmp_path: Path) -> Place:
    """An empty store in a bucket."""
    return Place(f"s3://{bucket}/store", tmp_path / "cache")


@pytest.fixture
def store(place: Place) -> AdapterStore:
    """A store in that bucket that keeps nothing of what it reads."""
    return place.open()


@pytest.mark.slow
def test_concurrent_publishers_lose_and_overwrite_nothing(place: Place, tmp_path: Path) -> None:
    publishers, each = 2, 5
    processes = []
    for marker in range(publishers):
        weights = {DELTA: np.full((1, 4), marker, np.float32)}
        folder = write_adapter(tmp_path / f"adapter-{marker}", weights)
        processes.append(start(PUBLISH_REPEATEDLY, place.url, place.cache, folder, each, marker))
    told = {
        version: marker
        for marker, process in enumerate(processes)
        for version in output(process).split()
    }
    store = place.open()
    expected = [f"v{number}" for number in range(1, publishers * each + 1)]
    assert [version.version for version in store.list()] == expected
    assert sorted(told, key=expected.index) == expected
    for version in store.list():
        pulled = store.verify(version)
        assert pulled.manifest.metrics == {"marker": told[pulled.version]}
        source = tmp_path / f"adapter-{told[pulled.version]}"
        name = "adapter_model.safetensors"
        assert (pulled.path / name).read_bytes() == (source / name).read_bytes()
    assert store.resolve("a").version == expected[-1]


@pytest.mark.slow
def test_concurrent_changes_of_aliases_and_splits_are_all_kept(
    place: Place, store: AdapterStore, adapter: Path
) -> None:
    for _ in range(2):
        store.publish(adapter, "a")
    names = [f"alias-{number}" for number in range(3)]
    for process in [start(SET_REPEATEDLY, place.url, place.cache, name) for name in names]:
        output(process)
    assert store.aliases("a") == {"latest": "v2", **dict.fromkeys(names, "v2")}
    assert {*store.splits("a")} == {*names}


def test_number_claimed_by_another_publisher_is_left_to_it(
    place: Place, store: AdapterStore, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_publishing, "_taken_numbers", lambda *_: [])
    place.write("a/v1/.publish", b"another")
    assert store.publish(adapter, "a").reference == "a@v2"
    assert place.read("a/v1/.publish") == b"another"
    assert [version.reference for version in store.list()] == ["a@v2"]


def test_alias_moved_to_a_later_version_is_not_moved_back_by_a_slow_publisher(
    place: Place, store: AdapterStore, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create, other = remote_publishing._create_manifest, place.open()

    def overtaken(*args: Any) -> None:
        create(*args)
        monkeypatch.setattr(remote_publishing, "_create_manifest", create)
        other.publish(adapter, "a")

    monkeypatch.setattr(remote_publishing, "_create_manifest", overtaken)
    assert store.publish(adapter, "a").version == "v1"
    assert store.resolve("a").version == "v2"


class TestInterruptedPublish:
    @pytest.fixture
    def interrupted(self, place: Place, store: AdapterStore, adapter: Path) -> None:
        """The store holds a@v1, and what a publisher that died left of a@v2."""
        store.publish(adapter, "a")
        place.write("a/v2/.publish", b"token")
        place.write("a/v2/adapter_config.json", b"{}")

    @pytest.mark.usefixtures("interrupted")
    def test_it_is_no_version_and_its_number_is_passed_over(
        self, store: AdapterStore, adapter: Path
    ) -> None:
        assert [version.reference for version in store.list()] == ["a@v1"]
        with pytest.raises(AdapterNotFoundError):
            store.resolve("a@v2")
        assert store.publish(adapter, "a").reference == "a@v3"

    @pytest.mark.usefixtures("interrupted")
    def test_collection_takes_it_once_it_is_old(self, place: Place, store: AdapterStore) -> None:
        assert store.gc().removed == ()
        (removed,) = store.gc(min_age=timedelta()).removed
        assert (removed.what, removed.is_version) == (place.where("a/v2"), False)
        assert removed.bytes == len(b"token{}")
        assert place.paths() == {path for path in place.paths() if not path.startswith("a/v2")}

    def test_failed_upload_takes_back_what_was_uploaded(
        self, place: Place, store: AdapterStore, adapter: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        upload = store._backend.upload  # type: ignore[attr-defined]

        def fail_at_weights(path: Path, key: str) -> None:
            if path.suffix == ".safetensors":
                raise StoreUnavailableError("away")
            upload(path, key)

        monkeypatch.setattr(store._backend, "upload", fail_at_weights)
        with pytest.raises(StoreUnavailableError):
            store.publish(adapter, "a")
        assert place.paths() == set()

    def test_publisher_whose_claim_was_collected_publishes_nothing(
        self, place: Place, store: AdapterStore, adapter: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        upload = store._backend.upload  # type: ignore[attr-defined]

        def upload_and_sleep(path: Path, key: str) -> None:
            upload(path, key)
            place.open().gc(min_age=timedelta())

        monkeypatch.setattr(store._backend, "upload", upload_and_sleep)
        with pytest.raises(PropulsionError, match="Nothing was published"):
            store.publish(adapter, "a")
        assert store.list() == []


class TestAbsentServer:
    def test_store_that_goes_away_is_told_and_works_once_it_is_back(
        self, s3_server: S3Server, store: AdapterStore, adapter: Path
    ) -> None:
        version = store.publish(adapter, "a")
        s3_server.stop()
        try:
            for call in (
                store.list,
                store.names,
                lambda: store.resolve("a"),
                lambda: store.verify("a"),
                lambda: store.publish(adapter, "a"),
                lambda: store.set_alias("a", "prod", "v1"),
                lambda: store.splits("a"),
                lambda: store.gc(),
            ):
                with pytest.raises(StoreUnavailableError, match="AWS_ENDPOINT_URL"):
                    call()
        finally:
            s3_server.start()
        assert store.resolve("a") == version
        assert store.publish(adapter, "a").reference == "a@v2"

    def test_version_in_the_cache_needs_no_server(
        self, s3_server: S3Server, store: AdapterStore, adapter: Path
    ) -> None:
        store.publish(adapter, "a")
        version = store.pull("a")
        s3_server.stop()
        try:
            assert store.pull(version) == version
            with store.hold(version) as held:
                assert (held.path / "adapter_model.safetensors").is_file()
        finally:
            s3_server.start()

    def test_server_that_does_not_answer_is_given_up(
        self, place: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from adapters.backends import filesystem

        monkeypatch.setattr(filesystem, "_READ_SECONDS", 0.2)
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
            store = place.open()
            with pytest.raises(StoreUnavailableError):
                store.resolve("a")

    def test_missing_bucket_is_told(self, s3_server: S3Server, tmp_path: Path) -> None:
        store = AdapterStore("s3://no-such-bucket/x", cache=tmp_path)
        for call in (store.list, lambda: store.resolve("a")):
            with pytest.raises(StoreUnavailableError, match="bucket does not exist"):
                call()

    def test_no_credentials_are_told(
        self, place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
        with pytest.raises(StoreUnavailableError, match="Check that the credentials"):
            place.open().list()


class TestRecentReads:
    def test_change_by_another_is_seen_after_the_ttl_and_an_own_one_at_once(
        self, place: Place, store: AdapterStore, adapter: Path
    ) -> None:
        for _ in range(2):
            store.publish(adapter, "a")
        patient, other = place.open(alias_ttl_seconds=3600.0), store
        assert patient.resolve("a").version == "v2"
        assert patient.splits("a") == {}
        other.set_alias("a", "latest", "v1")
        other.set_split("a", "latest", {"v1": 1})
        assert patient.resolve("a").version == "v2"
        assert patient.splits("a") == {}
        assert place.open().resolve("a").version == "v1"
        patient.set_alias("a", "prod", "v1")
        assert patient.aliases("a") == {"latest": "v1", "prod": "v1"}
        patient.publish(adapter, "a", aliases=["prod"])
        assert patient.resolve("a@prod").version == "v3"

    def test_repeated_resolving_asks_the_server_nothing(
        self, place: Place, s3_server: S3Server, store: AdapterStore, adapter: Path
    ) -> None:
        store.publish(adapter, "a")
        patient = place.open(alias_ttl_seconds=3600.0)
        patient.resolve("a")
        asked = len(s3_server.requests)
        for _ in range(5):
            patient.resolve("a")
            patient.resolve("a@v1")
        assert len(s3_server.requests) == asked

    def test_listing_and_resolving_download_no_weights(
        self, s3_server: S3Server, store: AdapterStore, adapter: Path
    ) -> None:
        for _ in range(2):
            store.publish(adapter, "a")
        start = len(s3_server.requests)
        assert [version.manifest.num_parameters for version in store.list()] == [24, 24]
        store.resolve("a")
        assert not any("safetensors" in request for request in s3_server.requests[start:])


class TestOddKeys:
    @pytest.mark.parametrize(
        "key",
        [
            "../v1/manifest.json",
            "a/../v1/manifest.json",
            "/v1/manifest.json",
            "b//manifest.json",
            "b/v1/",
            "b/v1/sub/manifest.json",
            "b/v1/../manifest.json",
            ".b/v1/manifest.json",
        ],
    )
    def test_key_is_not_of_the_store(
        self, s3_server: S3Server, bucket: str, store: AdapterStore, adapter: Path, key: str
    ) -> None:
        s3_server.client().put_object(Bucket=bucket, Key=f"store/{key}", Body=b"{}")
        version = store.publish(adapter, "a")
        assert store.list() == [version]
        store.gc(keep_last=1)

    def test_neighbour_with_the_same_start_is_another_store(
        self, store: AdapterStore, place: Place, adapter: Path
    ) -> None:
        neighbour = AdapterStore(f"{place.url}-2", cache=place.cache)
        neighbour.publish(adapter, "b")
        assert store.list() == []
        assert store.names() == []

    def test_larger_object_than_listed_is_not_downloaded(
        self, place: Place, store: AdapterStore, adapter: Path
    ) -> None:
        store.publish(adapter, "a")
        place.write("a/v1/adapter_model.safetensors", bytes(1 << 20))
        with pytest.raises(AdapterCorruptError, match=r"is not whole: .* found 1048576"):
            store.pull("a")


def test_version_travels_to_other_processes_with_its_manifest(
    store: AdapterStore, adapter: Path
) -> None:
    store.publish(adapter, "a")
    version = pickle.loads(pickle.dumps(store.list()[0]))
    assert version == store.pull("a")
    assert version.manifest == store.resolve("a").manifest


def test_manifest_times_are_utc(store: AdapterStore, adapter: Path) -> None:
    created = store.publish(adapter, "a").manifest.created
    assert abs(created - datetime.now(UTC)) < timedelta(minutes=5)


class TestLocations:
    @pytest.mark.parametrize(
        ("location", "why"),
        [
            ("", "empty path"),
            ("s3://", "names no bucket"),
            ("s3://bucket/../x", r"'\.\.' part"),
            ("s3://bucket/a//b", "empty"),
            ("nope://x", "Protocol not known"),
            ("simplecache::s3://bucket", "chain of URLs"),
            ("file://host/x", "not a path on this machine"),
        ],
    )
    def test_bad_location_is_refused(self, location: str, why: str) -> None:
        with pytest.raises(ConfigError, match=why):
            AdapterStore(location)

    def test_missing_driver_is_told_with_what_to_install(self) -> None:
        pytest.importorskip("fsspec")
        with pytest.raises(ConfigError, match=r"pip install 'fsspec\[gs\]'"):
            AdapterStore("gs://bucket/x")

    def test_missing_s3_driver_is_told_with_our_extra(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from adapters.backends import filesystem

        monkeypatch.setattr(filesystem.importlib.util, "find_spec", lambda _: None)
        with pytest.raises(ConfigError, match=r"pip install propulsion\[s3\]"):
            AdapterStore("s3://bucket/x")

    def test_password_in_a_url_is_not_shown(self) -> None:
        with pytest.raises(ConfigError) as error:
            AdapterStore("sftp://user:pass-word@host/x")
        assert "pass-word" not in str(error.value)
        assert "host/x" in str(error.value)

    def test_secret_key_is_in_no_message(
        self, s3_server: S3Server, store: AdapterStore, adapter: Path
    ) -> None:
        s3_server.stop()
        try:
            with pytest.raises(StoreUnavailableError) as error:
                store.publish(adapter, "a")
        finally:
            s3_server.start()
        assert SECRET_KEY not in str(error.value)

    def test_remote_store_has_no_local_folder(self, store: AdapterStore) -> None:
        with pytest.raises(ConfigError, match="not a local folder"):
            _ = store.path

    def test_path_and_file_url_are_the_same_store(self, tmp_path: Path, adapter: Path) -> None:
        folder = tmp_path / "with space"
        AdapterStore(folder).publish(adapter, "a")
        url = folder.as_uri()
        assert "%20" in url
        assert AdapterStore(url).list() == AdapterStore(str(folder)).list() != []
