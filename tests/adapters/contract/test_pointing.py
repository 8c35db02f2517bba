"""What holds of aliases and splits wherever the store is."""

import json
from pathlib import Path
from typing import Any

import pytest

from adapters import AdapterStore
from propulsion.errors import AdapterCorruptError, AdapterNotFoundError, ConfigError
from tests.adapters.contract.place import Place


@pytest.fixture(autouse=True)
def three_versions(store: AdapterStore, adapter: Path) -> None:
    """The store holds a@v1 to a@v3."""
    for _ in range(3):
        store.publish(adapter, "a")


class TestAliases:
    def test_alias_is_set_moved_and_rolled_back(self, store: AdapterStore) -> None:
        for version in ("v1", "v2", "v1"):
            store.set_alias("a", "prod", version)
            assert store.resolve("a@prod").version == version
        assert store.aliases("a") == {"latest": "v3", "prod": "v1"}

    def test_other_stores_see_it(self, store: AdapterStore, place: Place) -> None:
        store.set_alias("a", "prod", "v2")
        assert place.open().resolve("a@prod").version == "v2"

    def test_deleted_alias_is_gone_with_its_split(self, store: AdapterStore) -> None:
        store.set_alias("a", "prod", "v1")
        store.set_split("a", "prod", {"v1": 1, "v2": 1})
        store.delete_alias("a", "prod")
        assert store.aliases("a") == {"latest": "v3"}
        assert store.splits("a") == {}
        with pytest.raises(AdapterNotFoundError, match="no alias 'prod'"):
            store.delete_alias("a", "prod")

    @pytest.mark.parametrize(
        ("arguments", "error"),
        [
            (("b", "prod", "v1"), AdapterNotFoundError),
            (("../a", "prod", "v1"), AdapterNotFoundError),
            (("a", "prod", "v4"), AdapterNotFoundError),
            (("a", "prod", "latest"), ConfigError),
            (("a", "v2", "v1"), ConfigError),
            (("a", "../prod", "v1"), ConfigError),
        ],
    )
    def test_bad_move_is_refused_and_changes_nothing(
        self, store: AdapterStore, arguments: tuple[str, str, str], error: type[Exception]
    ) -> None:
        with pytest.raises(error):
            store.set_alias(*arguments)
        assert store.aliases("a") == {"latest": "v3"}

    @pytest.mark.parametrize("name", ["b", "../a", ""])
    def test_unknown_name_is_not_found(self, store: AdapterStore, name: str) -> None:
        for call in (store.aliases, store.splits, store.versions):
            with pytest.raises(AdapterNotFoundError):
                call(name)
        for change in (store.delete_alias, store.delete_split):
            with pytest.raises(AdapterNotFoundError):
                change(name, "prod")

    @pytest.mark.parametrize(
        "text", [b"", b"{", b"[]", b'{"prod": 1}', b'{"prod": "../../other/v1"}', b'{"v9": "v1"}']
    )
    def test_malformed_file_is_refused_with_what_to_do(
        self, store: AdapterStore, place: Place, adapter: Path, text: bytes
    ) -> None:
        place.write("a/aliases.json", text)
        for call in (
            lambda: store.resolve("a@prod"),
            lambda: store.set_alias("a", "prod", "v1"),
            lambda: store.gc(keep_last=1),
        ):
            with pytest.raises(AdapterCorruptError, match=r"aliases\.json.*delete the file"):
                call()
        assert store.resolve("a@v1").version == "v1"
        assert place.read("a/aliases.json") == text


class TestSplits:
    def test_weights_are_kept_with_sum_1(self, store: AdapterStore, place: Place) -> None:
        store.set_split("a", "prod", {"v2": 1, "v1": 3})
        assert store.splits("a") == {"prod": {"v1": 0.75, "v2": 0.25}}
        assert json.loads(place.read("a/splits.json")) == store.splits("a")
        assert place.open().splits("a") == store.splits("a")

    def test_reference_ignores_the_split(self, store: AdapterStore) -> None:
        store.set_split("a", "latest", {"v1": 1})
        assert store.resolve("a").version == "v3"
        assert store.aliases("a") == {"latest": "v3"}

    def test_moving_the_alias_ends_its_split_alone(self, store: AdapterStore) -> None:
        for alias in ("prod", "canary"):
            store.set_split("a", alias, {"v1": 1, "v2": 1})
        store.set_alias("a", "prod", "v2")
        assert [*store.splits("a")] == ["canary"]

    def test_publishing_to_the_alias_ends_its_split(
        self, store: AdapterStore, adapter: Path
    ) -> None:
        for alias in ("latest", "prod"):
            store.set_split("a", alias, {"v1": 1, "v2": 1})
        store.publish(adapter, "a")
        assert [*store.splits("a")] == ["prod"]

    def test_deleted_split_leaves_the_alias(self, store: AdapterStore) -> None:
        store.set_split("a", "latest", {"v1": 1, "v2": 1})
        store.delete_split("a", "latest")
        assert store.splits("a") == {}
        assert store.aliases("a") == {"latest": "v3"}
        with pytest.raises(AdapterNotFoundError, match="'latest' of a is not split"):
            store.delete_split("a", "latest")

    @pytest.mark.parametrize(
        ("weights", "error"),
        [
            ({}, ConfigError),
            ({"v1": 0}, ConfigError),
            ({"v1": -1, "v2": 2}, ConfigError),
            ({"v1": float("nan")}, ConfigError),
            ({"v1": float("inf")}, ConfigError),
            ({"v1": "1"}, ConfigError),
            ({"v1": True}, ConfigError),
            ({"latest": 1}, ConfigError),
            ({"v1": 1e-300, "v2": 1e300}, ConfigError),
            ({"v1": 1, "v4": 1}, AdapterNotFoundError),
        ],
    )
    def test_bad_weights_are_refused_and_change_nothing(
        self, store: AdapterStore, weights: dict[str, Any], error: type[Exception]
    ) -> None:
        store.set_split("a", "prod", {"v1": 1})
        with pytest.raises(error):
            store.set_split("a", "prod", weights)
        assert store.splits("a") == {"prod": {"v1": 1.0}}

    def test_large_weights_do_not_overflow(self, store: AdapterStore) -> None:
        store.set_split("a", "prod", {"v1": 1e308, "v2": 1e308})
        assert store.splits("a") == {"prod": {"v1": 0.5, "v2": 0.5}}

    @pytest.mark.parametrize(
        "text", [b"{", b'{"prod": {}}', b'{"prod": {"v1": 2}}', b'{"prod": {"x": 1}}', b'{"v1": 1}']
    )
    def test_malformed_file_is_refused_with_what_to_do(
        self, store: AdapterStore, place: Place, text: bytes
    ) -> None:
        place.write("a/splits.json", text)
        with pytest.raises(AdapterCorruptError, match=r"splits\.json.*delete the file"):
            store.splits("a")
        assert store.resolve("a").version == "v3"
