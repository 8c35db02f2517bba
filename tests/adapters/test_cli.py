import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from adapters import AdapterStore, base_fingerprint
from adapters.cli import app
from propulsion.errors import AdapterCorruptError, AdapterNotFoundError
from tests.adapters.folders import write_adapter, write_base


def run(*args: object, store: AdapterStore | None = None) -> Result:
    option = [] if store is None else ["--store", str(store.path)]
    result = CliRunner().invoke(app, [*map(str, args), *option], env={"COLUMNS": "160"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def run_json(*args: object, store: AdapterStore) -> Any:
    return json.loads(run(*args, "--json", store=store).stdout)


def test_publish_prints_the_version(store: AdapterStore, adapter: Path) -> None:
    result = run("publish", adapter, "sst2", store=store)
    assert result.exit_code == 0
    assert "sst2@v1" in result.stdout
    assert store.resolve("sst2").reference == "sst2@v1"


def test_publish_takes_base_and_aliases(store: AdapterStore, adapter: Path, tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", {"model.safetensors": {"a": np.ones(2)}})
    published = run_json(
        *("publish", adapter, "a", "--base", base, "--alias", "prod", "--alias", "canary"),
        store=store,
    )
    assert published["reference"] == "a@v1"
    assert published["aliases"] == ["canary", "prod"]
    assert published["manifest"]["base_fingerprint"] == base_fingerprint(base)
    assert store.aliases("a") == {"canary": "v1", "prod": "v1"}


def test_list_shows_every_version_with_its_aliases(store: AdapterStore, adapter: Path) -> None:
    for _ in range(2):
        store.publish(adapter, "a")
    table = run("list", store=store).stdout
    assert "a@v1" in table
    assert "PROPULSION" in table
    assert "models/tiny" in table
    rows = run_json("list", store=store)
    assert [(row["reference"], row["aliases"]) for row in rows] == [
        ("a@v1", []),
        ("a@v2", ["latest"]),
    ]
    assert rows[0]["manifest"]["num_parameters"] == 24
    assert rows[0]["path"] == str(store.path / "a" / "v1")


def test_list_shows_damaged_versions_among_the_others(store: AdapterStore, adapter: Path) -> None:
    for _ in range(2):
        store.publish(adapter, "a")
    (store.path / "a" / "v1" / "manifest.json").write_text("{")
    assert "damaged" in run("list", store=store).stdout
    first, second = run_json("list", store=store)
    assert "manifest.json" in first["error"]
    assert first["manifest"] is None
    assert second["error"] is None


def test_empty_store_is_said_to_be_empty(store: AdapterStore) -> None:
    for command in ("list", "verify"):
        result = run(command, store=store)
        assert result.exit_code == 0
        assert "No adapters in" in result.stdout
        assert run_json(command, store=store) == []


def test_store_comes_from_the_environment(
    store: AdapterStore, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.publish(adapter, "from-env")
    monkeypatch.setenv("PROPULSION_STORE", str(store.path))
    assert "from-env@v1" in run("list").stdout


def test_store_is_the_folder_store_by_default(
    store: AdapterStore, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.publish(adapter, "here")
    monkeypatch.chdir(store.path.parent)
    monkeypatch.delenv("PROPULSION_STORE", raising=False)
    assert "here@v1" in run("list").stdout


def test_show_prints_the_manifest(store: AdapterStore, adapter: Path) -> None:
    store.publish(adapter, "a", metrics={"accuracy": 0.91})
    text = run("show", "a", store=store).stdout
    assert "a@v1" in text
    assert "0.91" in text
    assert run_json("show", "a@latest", store=store)["manifest"]["metrics"] == {"accuracy": 0.91}


def test_show_passes_the_error_on(store: AdapterStore) -> None:
    with pytest.raises(AdapterNotFoundError):
        run("show", "a", store=store)


def test_text_from_an_adapter_cannot_steer_the_terminal(
    store: AdapterStore, tmp_path: Path
) -> None:
    folder = write_adapter(tmp_path / "evil", base_model_name_or_path="\x1b[2J[red]base[/red]")
    store.publish(folder, "a")
    for args in (["list"], ["show", "a"]):
        text = run(*args, store=store).stdout
        assert "\x1b[2J" not in text
        assert "[red]base[/red]" in text


def test_verify_prints_every_version_and_fails_if_one_is_bad(
    store: AdapterStore, adapter: Path
) -> None:
    for _ in range(3):
        store.publish(adapter, "a")
    assert run("verify", store=store).exit_code == 0
    (store.path / "a" / "v2" / "adapter_config.json").unlink()
    result = run("verify", store=store)
    assert result.exit_code == 1
    assert [line.split()[:2] for line in result.stdout.splitlines()] == [
        ["ok", "a@v1"],
        ["BAD", "a@v2:"],
        ["ok", "a@v3"],
    ]
    assert "adapter_config.json" in result.stdout
    assert [row["ok"] for row in run_json("verify", store=store)] == [True, False, True]


def test_verify_of_one_reference_looks_at_no_other(store: AdapterStore, adapter: Path) -> None:
    for _ in range(2):
        store.publish(adapter, "a")
    (store.path / "a" / "v2" / "manifest.json").unlink()
    assert run("verify", "a@v1", store=store).exit_code == 0
    result = run("verify", "a", store=store)
    assert result.exit_code == 1
    assert "manifest.json" in result.stdout
    with pytest.raises(AdapterNotFoundError):
        run("verify", "a@v9", store=store)


def test_alias_moves_and_says_so(store: AdapterStore, adapter: Path) -> None:
    for _ in range(2):
        store.publish(adapter, "a")
    assert "a@prod is now a@v1" in run("alias", "a", "prod", "v1", store=store).stdout
    assert run_json("alias", "a", "prod", "v2", store=store) == {"latest": "v2", "prod": "v2"}
    assert store.resolve("a@prod").version == "v2"


def test_bad_folder_passes_the_error_on(store: AdapterStore, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(AdapterCorruptError, match=r"adapter_config\.json: missing"):
        run("publish", tmp_path / "empty", "a", store=store)


@pytest.mark.parametrize("command", ["list", "show", "publish", "verify", "alias"])
def test_help_explains_every_command(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert "PROPULSION_STORE" in result.stdout
