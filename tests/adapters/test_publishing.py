import os
import sys
from pathlib import Path

import numpy as np
import pytest

from adapters import AdapterStore, staging
from adapters.backends import local_publishing
from propulsion.errors import AdapterCorruptError, PropulsionError
from tests.adapters.folders import DELTA, leftovers, visible, write_adapter
from tests.adapters.processes import in_mount_namespace, limit_file_size, output, start

PUBLISH_REPEATEDLY = """
    import sys
    from adapters import AdapterStore
    store, folder, count, marker = sys.argv[1:]
    for _ in range(int(count)):
        metrics = {"marker": int(marker)}
        print(AdapterStore(store).publish(folder, "a", metrics=metrics).version, flush=True)
"""
PUBLISH_AND_STALL = """
    import sys
    from adapters import AdapterStore, staging
    def stall(folder):
        print(folder, flush=True)
        sys.stdin.read()
    staging.validate_folder = stall
    AdapterStore(sys.argv[1]).publish(sys.argv[2], "a")
"""
PUBLISH_AND_REPORT = """
    import sys
    from adapters import AdapterStore
    from propulsion.errors import PropulsionError
    try:
        AdapterStore(sys.argv[1]).publish(sys.argv[2], "a")
    except PropulsionError as error:
        print(error)
"""
REPORT_IN_SHELL = """
    exec "$2" -c '
import sys
from adapters import AdapterStore
from propulsion.errors import PropulsionError
store = AdapterStore(sys.argv[1])
try:
    store.publish(sys.argv[2], "a")
except PropulsionError as error:
    print(error)
print([v.reference for v in store.list()], sorted(p.name for p in store.path.rglob("*")))
' "$1/store" "$3"
"""


@pytest.fixture
def large_adapter(tmp_path: Path) -> Path:
    """An adapter whose weights alone pass 256 KiB."""
    return write_adapter(tmp_path / "large", {DELTA: np.zeros((1, 70_000), np.float32)})


def test_concurrent_publishers_lose_and_overwrite_nothing(
    store: AdapterStore, tmp_path: Path
) -> None:
    publishers, each = 4, 5
    processes = []
    for marker in range(publishers):
        weights = {DELTA: np.full((1, 4), marker, np.float32)}
        folder = write_adapter(tmp_path / f"adapter-{marker}", weights, degree=marker)
        processes.append(start(PUBLISH_REPEATEDLY, store.path, folder, each, marker))
    told = {
        version: marker
        for marker, process in enumerate(processes)
        for version in output(process).split()
    }
    expected = [f"v{number}" for number in range(1, publishers * each + 1)]
    assert [version.version for version in store.list()] == expected
    assert sorted(told, key=expected.index) == expected
    for version in store.list():
        store.verify(version)
        source = tmp_path / f"adapter-{told[version.version]}"
        for file in ("adapter_config.json", "adapter_model.safetensors"):
            assert (version.path / file).read_bytes() == (source / file).read_bytes()
        assert version.manifest.metrics == {"marker": told[version.version]}
    assert store.resolve("a").version == expected[-1]
    assert leftovers(store.path / "a") == []


def test_version_taken_at_the_last_moment_is_left_alone(
    store: AdapterStore, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = store.publish(adapter, "a")
    content = (first.path / "manifest.json").read_bytes()
    count = local_publishing._next_version
    guesses = iter(["v1", "v1"])
    monkeypatch.setattr(
        local_publishing, "_next_version", lambda *args: next(guesses, None) or count(*args)
    )
    second = store.publish(adapter, "a")
    assert second.reference == "a@v2"
    assert store.verify("a@latest") == second
    assert (first.path / "manifest.json").read_bytes() == content


def test_killed_publisher_leaves_nothing_listed_and_the_next_one_cleans_up(
    store: AdapterStore, adapter: Path
) -> None:
    stalled = start(PUBLISH_AND_STALL, store.path, adapter)
    assert stalled.stdout
    staging = Path(stalled.stdout.readline().strip())
    try:
        assert store.list() == []
        assert store.names() == []
        store.publish(adapter, "a")
        assert staging.is_dir(), "the next publisher removed what a living one works on"
    finally:
        stalled.kill()
        stalled.communicate()
    assert staging.is_dir()
    assert store.publish(adapter, "a").reference == "a@v2"
    assert leftovers(store.path / "a") == []


def test_stalled_publisher_finishes_as_a_later_version(store: AdapterStore, adapter: Path) -> None:
    code = PUBLISH_AND_STALL.replace("sys.stdin.read()", "sys.stdin.read(); return check(folder)")
    code = code.replace("def stall", "check = staging.validate_folder\n    def stall")
    stalled = start(code, store.path, adapter)
    assert stalled.stdout
    stalled.stdout.readline()
    store.publish(adapter, "a")
    output(stalled)
    assert store.resolve("a").version == "v2"
    assert leftovers(store.path / "a") == []


@pytest.mark.parametrize("published", [1, 2, 3, 5])
def test_store_is_whole_wherever_a_publisher_is_killed(
    store: AdapterStore, adapter: Path, published: int
) -> None:
    publisher = start(PUBLISH_REPEATEDLY, store.path, adapter, 10_000, 0)
    assert publisher.stdout
    told = [publisher.stdout.readline().strip() for _ in range(published)]
    publisher.kill()
    publisher.communicate()
    versions = [version.version for version in map(store.verify, store.list())]
    assert versions[:published] == told
    assert store.resolve("a").version in versions[-2:]
    assert store.publish(adapter, "a").version == f"v{len(versions) + 1}"
    assert leftovers(store.path / "a") == []


def test_links_and_files_named_like_leftovers_are_left_alone(
    store: AdapterStore, adapter: Path, tmp_path: Path
) -> None:
    store.publish(adapter, "a")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "keep").write_text("")
    (store.path / "a" / ".publish-link").symlink_to(outside)
    (store.path / "a" / ".publish-file").write_text("")
    store.publish(adapter, "a")
    assert [path.name for path in outside.iterdir()] == ["keep"]


class TestFullDisk:
    @pytest.mark.parametrize("limit", [0, 100, 4096, 200_000])
    def test_first_publish_leaves_nothing(
        self, store: AdapterStore, large_adapter: Path, limit: int
    ) -> None:
        process = start(
            PUBLISH_AND_REPORT, store.path, large_adapter, preexec=limit_file_size(limit)
        )
        assert "File too large. Nothing was published" in (
            output(process).replace("[Errno 27] ", "")
        )
        assert store.list() == []
        assert visible(store.path / "a") == set()
        assert leftovers(store.path / "a") == []

    def test_later_publish_leaves_the_store_as_it_was(
        self, store: AdapterStore, adapter: Path, large_adapter: Path
    ) -> None:
        first = store.publish(adapter, "a")
        process = start(
            PUBLISH_AND_REPORT, store.path, large_adapter, preexec=limit_file_size(4096)
        )
        assert "Nothing was published" in output(process)
        assert store.list() == [first]
        assert store.verify("a") == first
        assert leftovers(store.path / "a") == []

    def test_alias_stays_where_it_was(self, store: AdapterStore, adapter: Path) -> None:
        store.publish(adapter, "a", aliases=["latest", "prod"])
        store.publish(adapter, "a")
        code = PUBLISH_AND_REPORT.replace(
            'publish(sys.argv[2], "a")', 'set_alias("a", "prod", "v2")'
        )
        message = output(start(code, store.path, preexec=limit_file_size(3)))
        assert "Cannot set alias prod of a" in message
        assert store.aliases("a") == {"latest": "v2", "prod": "v1"}
        assert leftovers(store.path / "a") == []

    def test_no_space_left_on_a_real_file_system(self, tmp_path: Path, large_adapter: Path) -> None:
        mount = tmp_path / "mount"
        mount.mkdir()
        script = 'mount -t tmpfs -o size=200k none "$1"' + REPORT_IN_SHELL
        done = run_or_skip(script, mount, sys.executable, large_adapter)
        assert "No space left on device" in done
        assert "Nothing was published" in done
        assert done.splitlines()[-1] == "[] ['.lock', 'a']"


def test_read_only_store_is_told_and_left_alone(
    store: AdapterStore, adapter: Path, tmp_path: Path
) -> None:
    mount = tmp_path / "mount"
    AdapterStore(mount / "store").publish(adapter, "a")
    script = 'mount --bind "$1" "$1"; mount -o remount,ro,bind "$1"' + REPORT_IN_SHELL
    done = run_or_skip(script, mount, sys.executable, adapter)
    assert "Read-only file system" in done
    assert "check that the store is writable" in done
    assert done.splitlines()[-1].startswith("['a@v1']")
    assert ".publish" not in done


def run_or_skip(script: str, *args: object) -> str:
    if in_mount_namespace('mount -t tmpfs none "$1"', args[0]).returncode:
        pytest.skip("this machine lets no user mount a file system")
    done = in_mount_namespace(script, *args)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_aliases_that_cannot_be_moved_after_the_rename_are_told(
    store: AdapterStore, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.publish(adapter, "a")

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(PropulsionError, match="a@v2 is published, but its aliases could not be"):
        store.publish(adapter, "a")
    monkeypatch.undo()
    assert store.verify("a@v2").version == "v2"
    assert store.resolve("a").version == "v1"
    assert leftovers(store.path / "a") == []


def test_damaged_aliases_stop_the_publish(store: AdapterStore, adapter: Path) -> None:
    store.publish(adapter, "a")
    (store.path / "a" / "aliases.json").write_text("{")
    with pytest.raises(AdapterCorruptError, match=r"aliases\.json"):
        store.publish(adapter, "a")
    assert [version.version for version in store.list()] == ["v1"]
    assert leftovers(store.path / "a") == []


def test_what_is_published_is_what_was_checked(
    store: AdapterStore, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A source changed between its check and its copy is caught by the check of the copy."""
    copy = staging.copy_file

    def copy_while_changed(source: Path, target: Path) -> tuple[str, int]:
        write_adapter(adapter, {DELTA: np.full((1, 8), np.nan, np.float32)})
        copied = copy(source, target)
        write_adapter(adapter)
        return copied

    monkeypatch.setattr(staging, "copy_file", copy_while_changed)
    with pytest.raises(AdapterCorruptError, match="NaN"):
        store.publish(adapter, "a")
    assert store.list() == []
