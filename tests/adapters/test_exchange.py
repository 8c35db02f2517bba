"""Adapters of other methods into a store, and out of it again."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from adapters import AdapterStore, base_fingerprint
from adapters.comparison import diff_versions
from adapters.exporting import export_version
from adapters.importing import import_adapter
from adapters.merging import merge_version
from propulsion.config import PropulsionConfig
from propulsion.errors import (
    AdapterCorruptError,
    AdapterNotFoundError,
    BaseMismatchError,
    ConfigError,
    PropulsionError,
)
from tests.adapters.folders import DELTA, PREFIX, write_adapter

BASE = Path(__file__).parents[2] / "examples" / "tiny_base" / "model"
CONFIGS: dict[str, Callable[[], Any]] = {
    "PROPULSION": lambda: PropulsionConfig(preset="attn", task_type="CAUSAL_LM"),
    "IA3": lambda: IA3Config(task_type="CAUSAL_LM"),
    "LORA": lambda: LoraConfig(r=4, task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj"]),
}


@pytest.fixture
def trained(tmp_path: Path) -> Callable[[Any], Path]:
    """Saves an adapter of a configuration on the tiny base, with parameters moved at random."""

    def save(config: Any) -> Path:
        torch.manual_seed(0)
        model = get_peft_model(load_base(), config)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data += 0.02 * torch.randn_like(parameter)
        folder = tmp_path / f"saved-{config.peft_type}"
        model.save_pretrained(folder)
        return folder

    return save


def load_base(path: Path = BASE) -> Any:
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(torch.arange(1, 9)[None]).logits


class TestImport:
    def test_ia3_becomes_propulsion_that_does_the_same(
        self, store: AdapterStore, trained: Callable[[Any], Path]
    ) -> None:
        folder = trained(CONFIGS["IA3"]())
        version = store.verify(import_adapter(store, folder, "a", aliases=["prod"]))
        assert store.aliases("a") == {"prod": "v1"}
        assert version.manifest.peft_type == "PROPULSION"
        assert version.manifest.training_config == {
            "imported_from": {"folder": str(folder), "peft_type": "IA3"}
        }
        expected = logits(PeftModel.from_pretrained(load_base(), folder))
        imported = logits(PeftModel.from_pretrained(load_base(), version.path))
        torch.testing.assert_close(imported, expected)
        assert not torch.allclose(imported, logits(load_base()))

    @pytest.mark.parametrize("kind", ["LORA", "PROPULSION"])
    def test_other_adapters_are_kept_as_they_are(
        self, store: AdapterStore, trained: Callable[[Any], Path], kind: str
    ) -> None:
        folder = trained(CONFIGS[kind]())
        version = import_adapter(store, folder, "a", base_fingerprint=base_fingerprint(BASE))
        assert version.manifest.peft_type == kind
        assert version.manifest.base_fingerprint == base_fingerprint(BASE)
        for file in ("adapter_config.json", "adapter_model.safetensors"):
            assert (version.path / file).read_bytes() == (folder / file).read_bytes()

    def test_other_methods_are_refused(self, store: AdapterStore, tmp_path: Path) -> None:
        write_adapter(tmp_path / "a", peft_type="PROMPT_TUNING")
        with pytest.raises(ConfigError, match="'PROMPT_TUNING' cannot be served"):
            import_adapter(store, tmp_path / "a", "a")

    @pytest.mark.parametrize("text", ["{", "[]", "{}"])
    def test_folder_without_a_configuration_is_refused(
        self, store: AdapterStore, tmp_path: Path, text: str
    ) -> None:
        with pytest.raises(AdapterCorruptError, match=r"adapter_config\.json: no such file"):
            import_adapter(store, tmp_path, "a")
        (tmp_path / "adapter_config.json").write_text(text)
        with pytest.raises(AdapterCorruptError, match=r"adapter_config\.json"):
            import_adapter(store, tmp_path, "a")

    @pytest.mark.parametrize("source", ["./nowhere", "/nowhere", "a/b/c", "..", "http://host/x"])
    def test_what_is_neither_folder_nor_hub_name_is_refused(
        self, store: AdapterStore, source: str, tmp_path: Path
    ) -> None:
        if source == "..":
            source = str(tmp_path / "file")
            Path(source).write_text("")
        with pytest.raises(ConfigError, match="neither a folder nor a name on the hub"):
            import_adapter(store, source, "a")

    def test_hub_that_cannot_be_reached_is_told(
        self, store: AdapterStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # The suite sets HF_HUB_OFFLINE.
        with pytest.raises(ConfigError, match="hub cannot be reached, or HF_HUB_OFFLINE"):
            import_adapter(store, "no-such-owner/no-such-adapter", "a", revision="v2")

    def test_name_on_the_hub_is_taken_from_its_cache_by_commit(
        self,
        store: AdapterStore,
        adapter: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
        repository, commit = tmp_path / "hub" / "models--owner--adapter", "ab" * 20
        (repository / "refs").mkdir(parents=True)
        (repository / "refs" / "main").write_text(commit)
        (repository / "snapshots").mkdir()
        adapter.rename(repository / "snapshots" / commit)
        version = import_adapter(store, "owner/adapter", "a")
        assert version.manifest.training_config["imported_from"] == {
            "hub": "owner/adapter",
            "commit": commit,
            "peft_type": "PROPULSION",
        }

    def test_folder_has_no_revision(self, store: AdapterStore, adapter: Path) -> None:
        with pytest.raises(ConfigError, match="has no revision 'main'"):
            import_adapter(store, adapter, "a", revision="main")


class TestExport:
    def test_folder_holds_what_was_published(
        self, store: AdapterStore, adapter: Path, tmp_path: Path
    ) -> None:
        (adapter / "README.md").write_text("# A")
        store.publish(adapter, "a")
        assert export_version(store, "a", tmp_path / "out").reference == "a@v1"
        files = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
        assert files == {path.name: path.read_bytes() for path in adapter.iterdir()}
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".out")] == []

    def test_propulsion_and_ia3_convert_into_each_other(
        self, store: AdapterStore, trained: Callable[[Any], Path], tmp_path: Path
    ) -> None:
        store.publish(trained(CONFIGS["PROPULSION"]()), "a")
        export_version(store, "a", tmp_path / "ia3", "ia3")
        store.publish(tmp_path / "ia3", "ia3")
        export_version(store, "ia3", tmp_path / "propulsion", "propulsion")
        expected = logits(PeftModel.from_pretrained(load_base(), store.resolve("a").path))
        for folder in ("ia3", "propulsion"):
            exported = logits(PeftModel.from_pretrained(load_base(), tmp_path / folder))
            torch.testing.assert_close(exported, expected)

    def test_lora_has_no_other_form(
        self, store: AdapterStore, trained: Callable[[Any], Path], tmp_path: Path
    ) -> None:
        store.publish(trained(CONFIGS["LORA"]()), "a")
        for form in ("ia3", "propulsion"):
            with pytest.raises(ConfigError, match="of type LORA, which cannot be written as"):
                export_version(store, "a", tmp_path / "out", form)  # type: ignore[arg-type]
        export_version(store, "a", tmp_path / "out")

    def test_nothing_is_overwritten(
        self, store: AdapterStore, adapter: Path, tmp_path: Path
    ) -> None:
        store.publish(adapter, "a")
        (tmp_path / "out").mkdir()
        export_version(store, "a", tmp_path / "out")
        with pytest.raises(ConfigError, match="not an empty folder"):
            export_version(store, "a", tmp_path / "out")

    def test_damaged_version_is_not_exported(
        self, store: AdapterStore, adapter: Path, tmp_path: Path
    ) -> None:
        weights = store.publish(adapter, "a").path / "adapter_model.safetensors"
        os.truncate(weights, 10)
        with pytest.raises(AdapterCorruptError, match="is not whole"):
            export_version(store, "a", tmp_path / "out")
        assert not (tmp_path / "out").exists()


class TestMerge:
    @pytest.mark.parametrize("kind", ["PROPULSION", "IA3", "LORA"])
    def test_merged_model_does_what_base_and_adapter_do(
        self, store: AdapterStore, trained: Callable[[Any], Path], tmp_path: Path, kind: str
    ) -> None:
        folder = trained(CONFIGS[kind]())
        base = tmp_path / "base"
        # The one here is in bfloat16, which rounds what is merged.
        load_base().save_pretrained(base)
        (base / "tokenizer.json").write_bytes((BASE / "tokenizer.json").read_bytes())
        store.publish(folder, "a", base_fingerprint=base_fingerprint(base))
        merge_version(store, "a", base, tmp_path / "merged")
        expected = logits(PeftModel.from_pretrained(load_base(), folder))
        merged = logits(load_base(tmp_path / "merged"))
        torch.testing.assert_close(merged, expected, atol=1e-4, rtol=1e-3)
        assert not torch.allclose(merged, logits(load_base()), atol=1e-3)
        files = {path.name for path in (tmp_path / "merged").iterdir()}
        assert files >= {"config.json", "model.safetensors", "tokenizer.json"}
        assert not any(file.startswith("adapter_") for file in files)

    def test_trained_head_is_merged(self, store: AdapterStore, tmp_path: Path) -> None:
        from transformers import AutoModelForSequenceClassification

        torch.manual_seed(0)
        base = AutoModelForSequenceClassification.from_pretrained(BASE, num_labels=3)
        config = PropulsionConfig(preset="attn", task_type="SEQ_CLS", modules_to_save=["score"])
        tuned = get_peft_model(base, config)
        tuned.save_pretrained(tmp_path / "head")
        store.publish(tmp_path / "head", "a")
        merge_version(store, "a", BASE, tmp_path / "merged")
        merged = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged")
        assert merged.config.num_labels == 3
        saved = load_file(tmp_path / "head" / "adapter_model.safetensors")
        assert merged.score.weight.equal(saved["base_model.model.score.weight"])

    @pytest.mark.parametrize("pooling", ["max", "min"])
    def test_pairs_of_scales_are_refused(
        self,
        store: AdapterStore,
        trained: Callable[[Any], Path],
        tmp_path: Path,
        pooling: Any,
    ) -> None:
        config = PropulsionConfig(
            preset="attn", num_vectors=2, pooling=pooling, task_type="CAUSAL_LM"
        )
        store.publish(trained(config), "a")
        with pytest.raises(PropulsionError, match="cannot be merged"):
            merge_version(store, "a", BASE, tmp_path / "merged")
        assert not (tmp_path / "merged").exists()

    def test_other_base_is_refused(
        self, store: AdapterStore, adapter: Path, tmp_path: Path
    ) -> None:
        store.publish(adapter, "a", base_fingerprint="sha256:" + "ab" * 32)
        with pytest.raises(BaseMismatchError, match="was trained for the base model"):
            merge_version(store, "a", BASE, tmp_path / "merged")
        weights = {DELTA: np.ones((1, 7), np.float32)}
        store.publish(write_adapter(adapter, weights, pooling="mean"), "a")
        with pytest.raises(BaseMismatchError, match="does not fit"):
            merge_version(store, "a", BASE, tmp_path / "merged")
        with pytest.raises(ConfigError, match=r"config\.json is missing"):
            merge_version(store, "a", tmp_path, tmp_path / "merged")
        assert not (tmp_path / "merged").exists()


class TestDiff:
    def test_scales_configuration_and_metrics_are_compared(
        self, store: AdapterStore, tmp_path: Path
    ) -> None:
        only = f"{PREFIX}.mlp.down_proj.propulsion_delta"
        first = {DELTA: np.full((1, 4), 0.5, np.float32), only: np.full((1, 4), 1.0, np.float32)}
        second = {DELTA: np.array([[0.5, 0.5, 0.5, 0.0]], np.float32)}
        options = {"pooling": "mean", "target_modules": ["q_proj", "down_proj"]}
        store.publish(
            write_adapter(tmp_path / "a", first, degree=1, **options), "a", metrics={"accuracy": 1}
        )
        store.publish(
            write_adapter(tmp_path / "b", second, degree=2, **options), "a", metrics={"loss": 0.5}
        )
        found = diff_versions(store, "a@v1", "a@v2")
        assert (found.a, found.b) == ("a@v1", "a@v2")
        assert found.config == {"degree": (1, 2)}
        assert found.metrics == {"accuracy": (1, None), "loss": (None, 0.5)}
        assert found.modules
        lonely, shared = found.modules
        assert lonely.module.endswith("mlp.down_proj")
        assert (lonely.only_in, lonely.max, lonely.mean) == ("a", 1.0, 1.0)
        # 1.5 against 1.5² three times, and against 1.
        assert (shared.only_in, shared.max, shared.mean) == (None, 0.75, 0.6875)

    def test_version_equals_itself_and_its_ia3(
        self, store: AdapterStore, trained: Callable[[Any], Path]
    ) -> None:
        folder = trained(CONFIGS["IA3"]())
        store.publish(folder, "ia3")
        import_adapter(store, folder, "imported")
        for a, b in (("ia3", "ia3"), ("ia3", "imported")):
            found = diff_versions(store, a, b)
            assert found.modules
            assert {module.max for module in found.modules} == {0.0}
        assert diff_versions(store, "ia3", "ia3").config == {}

    def test_different_sizes_are_not_compared(self, store: AdapterStore, tmp_path: Path) -> None:
        for size in (4, 8):
            weights = {DELTA: np.ones((1, size), np.float32)}
            store.publish(write_adapter(tmp_path / "a", weights, pooling="mean"), "a")
        (module,) = diff_versions(store, "a@v1", "a@v2").modules or ()
        assert (module.max, module.mean, module.only_in) == (None, None, None)

    def test_lora_has_no_scales_to_compare(
        self, store: AdapterStore, trained: Callable[[Any], Path]
    ) -> None:
        store.publish(trained(CONFIGS["LORA"]()), "a")
        assert diff_versions(store, "a", "a").modules is None
        with pytest.raises(AdapterNotFoundError):
            diff_versions(store, "a", "b")

    def test_result_is_json(self, store: AdapterStore, tmp_path: Path) -> None:
        from dataclasses import asdict

        store.publish(write_adapter(tmp_path / "a", pooling="mean"), "a")
        assert json.loads(json.dumps(asdict(diff_versions(store, "a", "a"))))["a"] == "a@v1"
