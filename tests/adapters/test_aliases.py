from pathlib import Path

import pytest

from adapters import AdapterStore
from propulsion.errors import AdapterCorruptError, AdapterNotFoundError, ConfigError
from tests.adapters.folders import leftovers, visible
from tests.adapters.processes import output, start

MOVE_REPEATEDLY = """
    import sys
    from adapters import AdapterStore
    store = AdapterStore(sys.argv[1])
    print("started", flush=True)
    for number in range(int(sys.argv[3])):
        store.set_alias("a", sys.argv[2], f"v{number % 2 + 1}")
"""


@pytest.fixture
def two_versions(store: AdapterStore, adapter: Path) -> AdapterStore:
    """A store with a@v1 and a@v2."""
    store.publish(adapter, "a")
    store.publish(adapter, "a")
    return store


def test_alias_is_set_moved_and_rolled_back(two_versions: AdapterStore) -> None:
    for version in ("v1", "v2", "v1"):
        two_versions.set_alias("a", "prod", version)
        assert two_versions.resolve("a@prod").version == version
    assert two_versions.aliases("a") == {"latest": "v2", "prod": "v1"}
    assert visible(two_versions.path / "a") == {"v1", "v2", "aliases.json"}


def test_name_without_aliases_has_none(store: AdapterStore, adapter: Path) -> None:
    store.publish(adapter, "a", aliases=[])
    assert store.aliases("a") == {}


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("b", "prod", "v1"), AdapterNotFoundError),
        (("../a", "prod", "v1"), AdapterNotFoundError),
        (("a", "prod", "v3"), AdapterNotFoundError),
        (("a", "prod", "latest"), ConfigError),
        (("a", "prod", "../v1"), ConfigError),
        (("a", "v2", "v1"), ConfigError),
        (("a", "../prod", "v1"), ConfigError),
    ],
)
def test_bad_move_is_refused_and_changes_nothing(
    two_versions: AdapterStore, arguments: tuple[str, str, str], error: type[Exception]
) -> None:
    with pytest.raises(error):
        two_versions.set_alias(*arguments)
    assert two_versions.aliases("a") == {"latest": "v2"}


def test_aliases_of_an_unknown_name_are_not_found(two_versions: AdapterStore) -> None:
    with pytest.raises(AdapterNotFoundError):
        two_versions.aliases("b")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"prod": 1}', '{"prod": "../../other/v1"}', '{"v9": "v1"}']
)
def test_malformed_file_is_refused_with_what_to_do(two_versions: AdapterStore, text: str) -> None:
    path = two_versions.path / "a" / "aliases.json"
    path.write_text(text)
    with pytest.raises(AdapterCorruptError, match=f"{path}.*delete the file"):
        two_versions.resolve("a@prod")
    assert two_versions.resolve("a@v1").version == "v1"


def test_readers_see_the_old_or_the_new_version_and_nothing_between(
    two_versions: AdapterStore,
) -> None:
    two_versions.set_alias("a", "prod", "v1")
    mover = start(MOVE_REPEATEDLY, two_versions.path, "prod", 200)
    seen = set()
    while mover.poll() is None:
        seen.add(two_versions.resolve("a@prod").version)
    output(mover)
    assert seen <= {"v1", "v2"}
    assert two_versions.resolve("a@prod").version == "v2"


def test_concurrent_moves_of_different_aliases_are_all_kept(two_versions: AdapterStore) -> None:
    movers = [start(MOVE_REPEATEDLY, two_versions.path, f"alias-{i}", 40) for i in range(3)]
    for mover in movers:
        output(mover)
    moved = {f"alias-{i}": "v2" for i in range(3)}
    assert two_versions.aliases("a") == {"latest": "v2", **moved}


def test_killed_mover_leaves_whole_aliases_and_no_lock(two_versions: AdapterStore) -> None:
    mover = start(MOVE_REPEATEDLY, two_versions.path, "prod", 1_000_000)
    assert mover.stdout
    mover.stdout.readline()
    while "prod" not in two_versions.aliases("a"):
        assert mover.poll() is None
    mover.kill()
    mover.communicate()
    assert two_versions.aliases("a")["prod"] in {"v1", "v2"}
    for version in ("v2", "v1"):
        two_versions.set_alias("a", "prod", version)
    assert two_versions.aliases("a") == {"latest": "v2", "prod": "v1"}
    assert leftovers(two_versions.path / "a") == []
