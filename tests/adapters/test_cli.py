import json
import os
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
    with pytest.raises(AdapterCorruptError, match=r"adapter_config\.json: no such file"):
        run("publish", tmp_path / "empty", "a", store=store)


def test_alias_lists_and_deletes(store: AdapterStore, adapter: Path) -> None:
    store.publish(adapter, "a", aliases=["latest", "prod"])
    assert run("alias", "a", store=store).stdout.split() == ["a@latest", "a@v1", "a@prod", "a@v1"]
    assert "a@prod is no more" in run("alias", "a", "prod", "--delete", store=store).stdout
    assert run_json("alias", "a", store=store) == {"latest": "v1"}


def test_split_is_set_listed_and_ended(store: AdapterStore, adapter: Path) -> None:
    for _ in range(2):
        store.publish(adapter, "a")
    text = run("split", "a", "prod", "v1=9", "v2=1", store=store).stdout
    assert text.split() == ["a@prod", "v1", "0.9", "v2", "0.1"]
    assert run_json("split", "a", store=store) == {"prod": {"v1": 0.9, "v2": 0.1}}
    assert "no longer split" in run("split", "a", "prod", "--delete", store=store).stdout
    assert store.splits("a") == {}


@pytest.mark.parametrize(
    "arguments",
    [
        ("alias", "a", "prod"),
        ("alias", "a", "prod", "v1", "--delete"),
        ("alias", "a", "--delete"),
        ("split", "a", "prod"),
        ("split", "a", "prod", "v1=1", "--delete"),
        ("split", "a", "--delete"),
        ("split", "a", "prod", "v1"),
        ("split", "a", "prod", "v1=x"),
        ("split", "a", "prod", "v1=nan"),
        ("split", "a", "prod", "v1=1", "v1=2"),
        ("gc", "--keep-last", "0"),
        ("pull", "--cache-bytes", "0"),
        ("export", "a", "out", "--format", "lora"),
    ],
)
def test_wrong_arguments_are_refused_and_change_nothing(
    store: AdapterStore, adapter: Path, arguments: tuple[str, ...]
) -> None:
    store.publish(adapter, "a")
    result = run(*arguments, store=store)
    assert result.exit_code == 2
    assert "Error" in result.stderr
    assert store.aliases("a") == {"latest": "v1"}
    assert store.splits("a") == {}


def test_pull_prints_where_the_files_are(store: AdapterStore, adapter: Path) -> None:
    assert "No adapters in" in run("pull", store=store).stdout
    version = store.publish(adapter, "a")
    assert str(version.path) in run("pull", "a", store=store).stdout.replace("\n", "")
    assert run_json("pull", store=store) == [{"reference": "a@v1", "path": str(version.path)}]


def test_gc_says_what_goes(store: AdapterStore, adapter: Path) -> None:
    for _ in range(3):
        store.publish(adapter, "a")
    options = ("--keep-last", 1, "--min-age-days", 0)
    assert "Would remove 2," in run("gc", "--dry-run", *options, store=store).stdout
    found = run_json("gc", "a", *options, store=store)
    assert [row["what"] for row in found["removed"]] == ["a@v1", "a@v2"]
    assert found["bytes"] == sum(row["bytes"] for row in found["removed"]) > 0
    assert [version.reference for version in store.list()] == ["a@v3"]


def test_adapters_go_out_and_come_in_again(
    store: AdapterStore, tmp_path: Path, adapter: Path
) -> None:
    store.publish(write_adapter(tmp_path / "source", pooling="mean", degree=1), "a")
    assert "a@v1 is in" in run("export", "a", tmp_path / "out", store=store).stdout
    run_json("export", "a", tmp_path / "ia3", "--format", "ia3", store=store)
    for folder in ("out", "ia3"):
        imported = run_json("import", tmp_path / folder, "b", "--alias", "new", store=store)
        assert imported["manifest"]["peft_type"] == "PROPULSION"
    assert store.aliases("b") == {"new": "v2"}
    table = run("diff", "a", "b@v2", store=store).stdout
    assert "mlp.up_proj" in table
    found = run_json("diff", "a", "b@v1", store=store)
    assert [module["max"] for module in found["modules"]] == [0.0, 0.0]


def test_diff_says_what_differs(store: AdapterStore, tmp_path: Path) -> None:
    for degree in (1, 2):
        folder = write_adapter(tmp_path / "a", pooling="mean", degree=degree)
        store.publish(folder, "a", metrics={"accuracy": degree / 4})
    text = run("diff", "a@v1", "a@v2", store=store).stdout
    for part in ("degree", "accuracy", "0.25", "0.5", "max |s_a - s_b|"):
        assert part in text


def test_merge_writes_a_model(store: AdapterStore, tmp_path: Path) -> None:
    base = Path(__file__).parents[2] / "examples" / "tiny_base" / "model"
    name = "base_model.model.model.layers.0.self_attn.q_proj.propulsion_delta"
    size = json.loads((base / "config.json").read_text())["hidden_size"]
    weights = {name: np.full((1, size), 0.1, np.float32)}
    options = {"pooling": "mean", "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
    store.publish(write_adapter(tmp_path / "a", weights, **options), "a")
    found = run_json("merge", "a", "--base", base, "--out", tmp_path / "merged", store=store)
    assert found == {"reference": "a@v1", "folder": str(tmp_path / "merged")}
    assert (tmp_path / "merged" / "model.safetensors").is_file()


def test_bucket_is_a_store_like_a_folder(
    bucket: str, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"s3://{bucket}/store"
    monkeypatch.setenv("PROPULSION_STORE", url)
    monkeypatch.setenv("PROPULSION_STORE_CACHE", str(tmp_path / "cache"))
    assert "No adapters in" in run("list").stdout
    published = json.loads(run("publish", adapter, "a", "--json").stdout)
    assert published["location"] == f"{url}/a/v1"
    assert "a@v1" in run("list").stdout
    assert run("verify").stdout.split() == ["ok", "a@v1"]
    assert str(tmp_path / "cache" / "a" / "v1") in run("pull", "a").stdout
    assert run("gc", "--keep-last", 1).exit_code == 0


@pytest.mark.parametrize(
    "arguments",
    [("show", "a"), ("list", "--store", "nope://x"), ("import", "./nowhere", "a")],
)
def test_error_of_the_user_is_one_line(store: AdapterStore, arguments: tuple[str, ...]) -> None:
    import subprocess
    import sys

    command = [sys.executable, "-m", "propulsion", "adapters", *arguments]
    environment = {**os.environ, "PROPULSION_STORE": str(store.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


COMMANDS = [
    *("list", "show", "publish", "pull", "verify", "alias", "split"),
    *("import", "export", "merge", "diff", "gc"),
]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_explains_every_command(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert "PROPULSION_STORE" in result.stdout
