import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from matplotlib.image import imread

from propulsion.analysis.cli import ntk
from propulsion.errors import (
    AdapterCorruptError,
    BaseMismatchError,
    ConfigError,
    DataError,
    PropulsionError,
)
from tests.propulsion.analysis.commands import load, run
from tests.propulsion.analysis.models import SST2, TINY_BASE, llama, save_base


def symmetric(rows: list[list[float]], size: int) -> bool:
    kernel = torch.tensor(rows, dtype=torch.float64)
    return kernel.shape == (size, size) and torch.allclose(kernel, kernel.T)


def test_ntk_of_a_trained_adapter_writes_kernels_and_drift(
    base: Path, adapter: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "out"
    options = ("--base", base, "--adapter", adapter, "--data", data, "--samples", 4)
    printed = run(ntk, *options, "--out", out)
    assert sorted(path.name for path in out.iterdir()) == [
        "ntk.json",
        "ntk_drift.png",
        "ntk_kernels.png",
    ]
    report = load(out / "ntk.json")
    assert report["run"]["adapter"] == str(adapter)
    assert (report["run"]["task"], report["run"]["samples"]) == ("causal-lm", 4)
    assert "log-odds" in report["scalar_output"]
    assert {sample["line"] for sample in report["samples"]} < {1, 2, 4, 5, 6}
    for name in ("full", "propulsion", "propulsion_after"):
        assert symmetric(report["kernels"][name], 4)
    assert 0 < report["full_and_propulsion"]["alignment"] <= 1
    assert report["drift"]["jacobian"] > 0
    assert len(report["jacobian_norms"]["modules"]) == 14
    assert {len(row) for row in report["jacobian_norms"]["difference"]} == {14}
    assert len(report["outputs"]["after"]) == 4
    assert f"{report['full_and_propulsion']['alignment']:.4f}" in printed
    assert f"{report['drift']['jacobian']:.4f}" in printed
    assert f"{report['num_parameters']['full']:,}" in printed


def test_ntk_of_a_fresh_adapter_has_no_drift_and_leaves_none_of_an_earlier_run(
    base: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "ntk_drift.png").write_text("of another run")
    run(ntk, "--base", base, "--data", data, "--samples", 3, "--preset", "attn", "--out", out)
    assert sorted(path.name for path in out.iterdir()) == ["ntk.json", "ntk_kernels.png"]
    report = load(out / "ntk.json")
    assert report["drift"] is None
    assert "propulsion_after" not in report["kernels"]
    assert report["num_parameters"]["propulsion"] == 2 * (16 + 8 + 8)
    assert imread(out / "ntk_kernels.png").shape[2] == 4


def test_ntk_is_the_same_for_the_same_seed_and_with_little_memory(
    base: Path, data: Path, tmp_path: Path
) -> None:
    reports = []
    for number, extra in enumerate((("--seed", 5), ("--seed", 5, "--max-memory", 0.001))):
        out = tmp_path / str(number)
        run(ntk, "--base", base, "--data", data, "--samples", 3, *extra, "--out", out)
        reports.append(load(out / "ntk.json"))
    assert reports[0]["samples"] == reports[1]["samples"]
    first, second = (torch.tensor(report["kernels"]["full"]) for report in reports)
    torch.testing.assert_close(first, second)


def test_ntk_of_the_shipped_base_on_sst2(tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ("--base", TINY_BASE, "--data", SST2, "--column", "sentence", "--samples", 2)
    run(ntk, *options, "--max-length", 6, "--out", out)
    report = load(out / "ntk.json")
    assert report["num_parameters"] == {"full": 5_475_584, "propulsion": 6 * (256 + 128 + 128)}
    assert all(2 <= sample["tokens"] <= 6 for sample in report["samples"])


def test_ntk_of_a_classifier_is_of_the_predicted_class(
    classifier: Path, data: Path, tmp_path: Path
) -> None:
    run(ntk, "--base", classifier, "--data", data, "--samples", 4, "--out", tmp_path / "out")
    report = load(tmp_path / "out" / "ntk.json")
    assert report["run"]["task"] == "classification"
    assert {sample["target"] for sample in report["samples"]} <= {0, 1, 2}


def test_ntk_gives_a_base_without_a_head_one_of_the_asked_size(
    base: Path, data: Path, tmp_path: Path
) -> None:
    task = ("--task", "classification", "--num-labels", 7)
    run(ntk, "--base", base, "--data", data, "--samples", 3, *task, "--out", tmp_path / "out")
    num_parameters = load(tmp_path / "out" / "ntk.json")["num_parameters"]["full"]
    assert num_parameters == sum(p.numel() for p in llama(classes=7).parameters())


def test_a_token_that_the_tokenizer_adds_at_the_end_is_not_the_target(
    base: Path, data: Path, tmp_path: Path
) -> None:
    folder = save_base(llama(), tmp_path / "ending")
    path = folder / "tokenizer.json"
    tokenizer = load(path)
    ending = {"SpecialToken": {"id": "</s>", "type_id": 0}}
    template = tokenizer["post_processor"]
    names = {token["id"]: token["content"] for token in tokenizer["added_tokens"]}
    ending["SpecialToken"]["id"] = names[2]
    template["single"].append(ending)
    template["special_tokens"][names[2]] = {"id": names[2], "ids": [2], "tokens": [names[2]]}
    path.write_text(json.dumps(tokenizer))
    for name, where in (("plain", base), ("ended", folder)):
        options = ("--base", where, "--data", data, "--samples", 3)
        run(ntk, *options, "--out", tmp_path / name)
    plain, ended = (load(tmp_path / name / "ntk.json") for name in ("plain", "ended"))
    assert ended["samples"] == plain["samples"]
    assert ended["kernels"] == plain["kernels"]


def refused(error: type[PropulsionError], message: str, out: Path, *args: object) -> None:
    with pytest.raises(error, match=message):
        run(ntk, *args, "--out", out)
    assert not out.exists()


def test_ntk_refuses_wrong_options(base: Path, adapter: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    inputs = ("--base", base, "--data", data, "--samples", 3)
    both = "--preset and --degree are of a fresh adapter"
    refused(ConfigError, both, out, *inputs, "--adapter", adapter, "--preset", "all")
    refused(ConfigError, both, out, *inputs, "--adapter", adapter, "--degree", 15)
    refused(ConfigError, "unknown --task 'qa'; choose one of", out, *inputs, "--task", "qa")
    refused(ConfigError, "unknown preset", out, *inputs, "--preset", "everything")
    refused(ConfigError, "degree must be a positive", out, *inputs, "--degree", 0)
    refused(ConfigError, "--column x is for", out, *inputs, "--column", "x")
    refused(ConfigError, "cannot be loaded", out, "--base", tmp_path / "no", "--data", data)
    large = ("--base", TINY_BASE, "--data", data, "--samples", 3, "--max-memory", 0.001)
    refused(ConfigError, r"embed_tokens.weight .* or allow more memory", out, *large)


def test_ntk_refuses_wrong_data(base: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    refused(DataError, "cannot be read", out, "--base", base, "--data", tmp_path / "no.txt")
    refused(
        DataError, "holds 5 samples of at least 2 tokens, 16", out, "--base", base, "--data", data
    )
    sst2 = ("--base", base, "--data", SST2)
    refused(DataError, "no column 'text'", out, *sst2, "--column", "text")
    refused(ConfigError, "with --column", out, *sst2)


def test_ntk_refuses_wrong_adapters(adapter: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    inputs = ("--data", data, "--samples", 3, "--base")
    other = save_base(llama(layers=1), tmp_path / "other")
    refused(BaseMismatchError, "is not for this base", out, *inputs, other, "--adapter", adapter)
    refused(AdapterCorruptError, "no such file", out, *inputs, other, "--adapter", tmp_path)


def test_ntk_refuses_a_folder_that_it_cannot_write_to(base: Path, data: Path) -> None:
    with pytest.raises(ConfigError, match=r"samples.txt: cannot be written to"):
        run(ntk, "--base", base, "--data", data, "--out", data)


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys, typer\n"
        "from typer.testing import CliRunner\n"
        "from propulsion.analysis.cli import inspect, ntk\n"
        "app = typer.Typer()\n"
        "app.command()(ntk), app.command()(inspect)\n"
        "for name in ('ntk', 'inspect'):\n"
        "    assert CliRunner().invoke(app, [name, '--help']).exit_code == 0\n"
        "print(sorted({'torch', 'peft', 'transformers', 'matplotlib'} & sys.modules.keys()))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert result.stdout.strip() == "[]", result.stderr
