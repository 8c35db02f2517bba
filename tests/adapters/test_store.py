import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adapters import AdapterStore
from propulsion.errors import (
    AdapterCorruptError,
    AdapterNotFoundError,
    BaseMismatchError,
    ConfigError,
    PropulsionError,
    StoreUnavailableError,
)
from tests.adapters.folders import leftovers, visible, write_adapter

FINGERPRINT = "sha256:" + "ab" * 32


def test_missing_store_lists_as_empty(store: AdapterStore) -> None:
    assert store.list() == []
    assert store.names() == []
    assert not store.path.exists()
    with pytest.raises(AdapterNotFoundError, match="is empty"):
        store.resolve("anything")


def test_a_store_whose_folder_goes_away_is_away_not_empty(
    store: AdapterStore, adapter: Path
) -> None:
    store.publish(adapter, "sst2")
    assert store.names() == ["sst2"]
    away = store.path.rename(store.path.with_name("away"))
    for read in (
        store.list,
        store.names,
        lambda: store.resolve("sst2"),
        lambda: store.resolve("x"),
    ):
        with pytest.raises(StoreUnavailableError, match="is away"):
            read()
    away.rename(store.path)
    assert store.resolve("sst2").version == "v1"


def test_published_folder_has_the_layout_of_the_contract(
    store: AdapterStore, adapter: Path
) -> None:
    (adapter / "training_args.bin").write_bytes(b"not published")
    version = store.publish(adapter, "sst2")
    assert (version.name, version.version, version.reference) == ("sst2", "v1", "sst2@v1")
    assert version.path == store.path / "sst2" / "v1"
    assert visible(store.path) == {"sst2"}
    assert visible(store.path / "sst2") == {"v1", "aliases.json"}
    assert {path.name for path in version.path.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "manifest.json",
    }
    assert json.loads((store.path / "sst2" / "aliases.json").read_text()) == {"latest": "v1"}
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        assert (version.path / file).read_bytes() == (adapter / file).read_bytes()


def test_readme_is_published_if_there(store: AdapterStore, adapter: Path) -> None:
    (adapter / "README.md").write_text("# A")
    version = store.publish(adapter, "a")
    assert (version.path / "README.md").read_text() == "# A"
    assert "README.md" in version.manifest.files


def test_manifest_says_what_was_given_and_found(store: AdapterStore, adapter: Path) -> None:
    store.publish(adapter, "a")
    before = datetime.now(UTC)
    manifest = store.publish(
        adapter,
        "a",
        base_fingerprint=FINGERPRINT,
        metrics={"accuracy": 0.9, "loss": float("nan")},
        training_config={"data": Path("x.jsonl"), "betas": (0.9, 0.99)},
        parent="a@latest",
    ).manifest
    assert (manifest.name, manifest.version, manifest.format_version) == ("a", "v2", 1)
    assert before <= manifest.created <= datetime.now(UTC)
    assert manifest.created.utcoffset() == timedelta(0)
    assert manifest.base_fingerprint == FINGERPRINT
    assert manifest.base_model_name_or_path == "models/tiny"
    assert manifest.peft_type == "PROPULSION"
    assert manifest.num_parameters == 24
    assert manifest.metrics == {"accuracy": 0.9, "loss": None}
    assert manifest.training_config == {"data": "x.jsonl", "betas": [0.9, 0.99]}
    assert manifest.parent == "a@v1"


def test_versions_count_up_and_sort_by_number(store: AdapterStore, adapter: Path) -> None:
    for _ in range(11):
        store.publish(adapter, "b")
    store.publish(adapter, "a")
    expected = ["a@v1", *(f"b@v{number}" for number in range(1, 12))]
    assert [version.reference for version in store.list()] == expected
    assert store.names() == ["a", "b"]


def test_listing_reads_neither_weights_nor_manifests(store: AdapterStore, adapter: Path) -> None:
    good, damaged = store.publish(adapter, "a"), store.publish(adapter, "a")
    (damaged.path / "adapter_model.safetensors").unlink()
    (damaged.path / "manifest.json").write_text("{")
    assert store.list() == [good, damaged]
    with pytest.raises(AdapterCorruptError, match=r"manifest\.json: not a manifest"):
        _ = store.list()[1].manifest


def test_earlier_versions_do_not_change(store: AdapterStore, adapter: Path) -> None:
    version = store.publish(adapter, "a")
    content = {path: path.read_bytes() for path in version.path.iterdir()}
    write_adapter(adapter, {"x.propulsion_delta": np.ones((1, 2), np.float32)})
    assert store.publish(adapter, "a").manifest.num_parameters == 2
    assert {path: path.read_bytes() for path in version.path.iterdir()} == content


def test_number_of_a_deleted_version_still_aliased_is_not_given_again(
    store: AdapterStore, adapter: Path
) -> None:
    store.publish(adapter, "a")
    shutil.rmtree(store.publish(adapter, "a").path)
    with pytest.raises(AdapterNotFoundError, match="latest of a means v2, which is not in the st"):
        store.resolve("a")
    assert store.publish(adapter, "a").version == "v3"


class TestResolve:
    def test_name_alias_and_version(self, store: AdapterStore, adapter: Path) -> None:
        first = store.publish(adapter, "a", aliases=("latest", "prod"))
        second = store.publish(adapter, "a")
        assert store.resolve("a") == store.resolve("a@latest") == second
        assert store.resolve("a@prod") == store.resolve("a@v1") == first
        assert store.aliases("a") == {"latest": "v2", "prod": "v1"}

    def test_publishing_without_latest_leaves_latest(
        self, store: AdapterStore, adapter: Path
    ) -> None:
        first = store.publish(adapter, "a")
        store.publish(adapter, "a", aliases=["canary"])
        third = store.publish(adapter, "a", aliases=[])
        assert store.resolve("a") == first
        assert store.resolve("a@canary").version == "v2"
        assert store.resolve("a@v3") == third

    def test_unknown_name_lists_names_and_close_matches(
        self, store: AdapterStore, adapter: Path
    ) -> None:
        for name in ("sst2-k15", "mrpc"):
            store.publish(adapter, name)
        with pytest.raises(AdapterNotFoundError) as error:
            store.resolve("sst2_k15")
        assert "Did you mean sst2-k15?" in str(error.value)
        assert "It holds: mrpc, sst2-k15." in str(error.value)

    def test_unknown_selector_lists_versions_and_aliases(
        self, store: AdapterStore, adapter: Path
    ) -> None:
        store.publish(adapter, "a", aliases=["latest", "prod"])
        with pytest.raises(AdapterNotFoundError, match=r"no alias pord\. Did you mean prod\?"):
            store.resolve("a@pord")
        with pytest.raises(AdapterNotFoundError, match=r"no version v2.* It has: v1"):
            store.resolve("a@v2")

    def test_name_whose_first_publish_failed_is_not_offered(
        self, store: AdapterStore, adapter: Path
    ) -> None:
        store.publish(adapter, "good")
        (store.path / "failed").mkdir()
        assert store.names() == ["good"]
        with pytest.raises(AdapterNotFoundError, match=r"No adapter 'failed' .*holds: good\.$"):
            store.resolve("failed")

    def test_message_stays_short_in_a_large_store(self, store: AdapterStore) -> None:
        for number in range(2000):
            (store.path / f"adapter-{number}").mkdir(parents=True)
        with pytest.raises(AdapterNotFoundError, match="and 1990 more") as error:
            store.resolve("adapter")
        assert len(str(error.value)) < 1000

    @pytest.mark.parametrize(
        "reference", ["", "../a", "/etc/passwd", "a@../../b", "a/v1", ".", "a@", "a\0"]
    )
    def test_malformed_reference_is_not_found(
        self, store: AdapterStore, adapter: Path, reference: str
    ) -> None:
        store.publish(adapter, "a")
        with pytest.raises(AdapterNotFoundError):
            store.resolve(reference)

    def test_damaged_manifest_is_refused(self, store: AdapterStore, adapter: Path) -> None:
        (store.publish(adapter, "a").path / "manifest.json").unlink()
        with pytest.raises(AdapterCorruptError, match=r"manifest\.json"):
            store.resolve("a")


class TestRefusedPublish:
    @pytest.mark.parametrize("name", ["", "..", ".a", "a/b", "/a", "a@v1", "a\n", "a" * 129])
    def test_malformed_name(self, store: AdapterStore, adapter: Path, name: str) -> None:
        with pytest.raises(ConfigError, match="cannot name an adapter"):
            store.publish(adapter, name)
        assert not store.path.exists()

    @pytest.mark.parametrize("aliases", [["v2"], ["../x"], ["a b"], [""], "latest"])
    def test_malformed_alias(self, store: AdapterStore, adapter: Path, aliases: Any) -> None:
        with pytest.raises(ConfigError, match="alias"):
            store.publish(adapter, "a", aliases=aliases)
        assert not store.path.exists()

    def test_folder_that_is_none(self, store: AdapterStore, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="is not a folder"):
            store.publish(tmp_path / "nowhere", "a")

    def test_bad_folder_makes_no_store(self, store: AdapterStore, tmp_path: Path) -> None:
        with pytest.raises(AdapterCorruptError, match="holds no tensor"):
            store.publish(write_adapter(tmp_path / "bad", {}), "a")
        assert not store.path.exists()

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("base_fingerprint", "abc"),
            ("metrics", {"loss": object()}),
            ("metrics", [1]),
            ("training_config", {"a": {"b": [object()]}}),
        ],
    )
    def test_value_no_manifest_can_hold(
        self, store: AdapterStore, adapter: Path, key: str, value: Any
    ) -> None:
        with pytest.raises(ConfigError, match=key):
            store.publish(adapter, "a", **{key: value})
        assert store.list() == []
        assert not store.path.exists() or leftovers(store.path / "a") == []

    def test_parent_not_in_the_store(self, store: AdapterStore, adapter: Path) -> None:
        with pytest.raises(AdapterNotFoundError, match="'b'"):
            store.publish(adapter, "a", parent="b")

    def test_store_that_is_a_file(self, tmp_path: Path, adapter: Path) -> None:
        (tmp_path / "file").write_text("")
        store = AdapterStore(tmp_path / "file")
        with pytest.raises(PropulsionError, match="Nothing was published"):
            store.publish(adapter, "a")
        with pytest.raises(PropulsionError, match="Cannot read the adapter store"):
            store.list()


class TestSymbolicLinks:
    def test_name_linking_out_of_the_store_is_not_in_it(
        self, store: AdapterStore, adapter: Path, tmp_path: Path
    ) -> None:
        other = AdapterStore(tmp_path / "other")
        other.publish(adapter, "secret")
        store.path.mkdir()
        (store.path / "secret").symlink_to(other.path / "secret")
        assert store.list() == []
        assert store.names() == []
        with pytest.raises(AdapterNotFoundError):
            store.resolve("secret@v1")
        with pytest.raises(AdapterNotFoundError):
            store.set_alias("secret", "prod", "v1")
        with pytest.raises(ConfigError, match="symbolic link"):
            store.publish(adapter, "secret")
        assert visible(other.path / "secret") == {"v1", "aliases.json"}

    def test_version_linking_out_of_the_store_is_not_in_it(
        self, store: AdapterStore, adapter: Path, tmp_path: Path
    ) -> None:
        outside = store.publish(adapter, "a").path.rename(tmp_path / "outside")
        (store.path / "a" / "v1").symlink_to(outside)
        assert store.list() == []
        assert store.publish(adapter, "a").version == "v2"
        with pytest.raises(AdapterNotFoundError):
            store.resolve("a@v1")

    @pytest.mark.parametrize("file", ["manifest.json", "adapter_config.json"])
    def test_file_linking_out_of_the_store_is_refused(
        self, store: AdapterStore, adapter: Path, tmp_path: Path, file: str
    ) -> None:
        path = store.publish(adapter, "a").path / file
        outside = path.rename(tmp_path / file)
        path.symlink_to(outside)
        with pytest.raises(AdapterCorruptError, match=f"{file}.* cannot be read"):
            store.verify("a")

    def test_aliases_file_linking_out_is_neither_read_nor_written(
        self, store: AdapterStore, adapter: Path, tmp_path: Path
    ) -> None:
        store.publish(adapter, "a")
        outside = tmp_path / "outside.json"
        outside.write_text('{"prod": "v1"}')
        (store.path / "a" / "aliases.json").unlink()
        (store.path / "a" / "aliases.json").symlink_to(outside)
        for call in (lambda: store.resolve("a@prod"), lambda: store.set_alias("a", "b", "v1")):
            with pytest.raises(AdapterCorruptError, match=r"aliases\.json: cannot be read"):
                call()
        assert outside.read_text() == '{"prod": "v1"}'

    def test_files_of_the_source_may_be_links_as_in_a_hub_cache(
        self, store: AdapterStore, adapter: Path, tmp_path: Path
    ) -> None:
        snapshot = tmp_path / "snapshot"
        snapshot.mkdir()
        for file in adapter.iterdir():
            (snapshot / file.name).symlink_to(file)
        version = store.publish(snapshot, "a")
        assert not any(file.is_symlink() for file in version.path.iterdir())
        store.verify(version)


class TestBase:
    def test_base_it_was_trained_for_passes(self, store: AdapterStore, adapter: Path) -> None:
        version = store.publish(adapter, "a", base_fingerprint=FINGERPRINT)
        version.require_base(FINGERPRINT, "models/renamed")

    def test_any_base_passes_without_a_fingerprint(
        self, store: AdapterStore, adapter: Path
    ) -> None:
        store.publish(adapter, "a").require_base(FINGERPRINT, "models/any")

    def test_other_base_is_refused_naming_both(self, store: AdapterStore, adapter: Path) -> None:
        version = store.publish(adapter, "a", base_fingerprint=FINGERPRINT)
        with pytest.raises(BaseMismatchError) as error:
            version.require_base("sha256:" + "cd" * 32, "models/other")
        for part in ("a@v1", "models/tiny", FINGERPRINT, "models/other", "cd" * 32, "train"):
            assert part in str(error.value)


def test_adapter_saved_by_peft_is_published_and_loaded_back(
    store: AdapterStore, tmp_path: Path
) -> None:
    import torch
    from peft import IA3Config, PeftModel, get_peft_model

    def base() -> torch.nn.Module:
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Linear(6, 2))

    config = IA3Config(target_modules=["0"], feedforward_modules=[])
    tuned = get_peft_model(base(), config)
    torch.nn.init.normal_(tuned.base_model.model[0].ia3_l["default"])
    tuned.save_pretrained(tmp_path / "saved")
    version = store.verify(store.publish(tmp_path / "saved", "ia3").reference)
    assert version.manifest.peft_type == "IA3"
    assert version.manifest.num_parameters == 6
    loaded = PeftModel.from_pretrained(base(), version.path)
    x = torch.randn(3, 4)
    torch.testing.assert_close(loaded(x), tuned(x))
    assert not torch.allclose(loaded(x), base()(x))
