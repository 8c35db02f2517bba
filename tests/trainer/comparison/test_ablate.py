"""`propulsion ablate`."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from propulsion.errors import ConfigError
from tests.trainer.runs import save_tiny_base, write_run
from trainer.comparison.ablations import ABLATIONS, variants
from trainer.comparison.cli import ablate
from trainer.config import JobConfig, load_run

app = typer.Typer()
app.command()(ablate)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def job(base: Path, tmp_path: Path) -> JobConfig:
    return load_run(write_run(tmp_path, base)).job


def test_each_ablation_varies_one_setting(job: JobConfig) -> None:
    changed = {
        "degree": {"degree"},
        "position": {"preset"},
        "init": {"init"},
        "layers": {"layers_to_transform"},
        "vectors": {"num_vectors"},
        "pooling": {"pooling", "num_vectors"},
    }
    own = job.adapter.model_dump()
    for variant in variants(job, 6, [], [1, 15]):
        settings = variant.adapter.model_dump()
        differing = {key for key in own if settings[key] != own[key]}
        assert differing <= changed[variant.ablation], variant
    assert {v.ablation for v in variants(job, 6, [], [1])} == {*ABLATIONS}


def test_number_of_layers_goes_from_one_over_half_to_all(job: JobConfig) -> None:
    found = variants(job, 6, ["layers"], [])
    assert [v.value for v in found] == [1, 3, 6]
    assert found[1].adapter.layers_to_transform == [0, 1, 2]


def test_unknown_ablation_is_refused(job: JobConfig) -> None:
    with pytest.raises(ConfigError, match="no such ablation 'depth'; there are degree"):
        variants(job, 6, ["depth"], [])


@pytest.mark.slow
def test_variants_are_trained_together_and_once(base: Path, tmp_path: Path) -> None:
    run_file = write_run(tmp_path, base, adapter={"preset": "all", "degree": 5}, training__steps=2)
    arguments = [str(run_file), "--only", "degree,vectors", "--degrees", "1,5,15"]
    arguments += ["--together", "4", "--seeds", "0"]
    runner = CliRunner(env={"OMP_NUM_THREADS": "1"})
    first = runner.invoke(app, arguments)
    assert first.exit_code == 0, first.output
    out = tmp_path / "out-ablated"
    tree = json.loads((out / "ablation.json").read_text())
    rows = {(v["variant"]["ablation"], v["variant"]["value"]): v for v in tree["variants"]}
    assert [value for ablation, value in rows if ablation == "vectors"] == [1, 2, 4, 8]
    assert rows["vectors", 8]["results"][0]["trainable_parameters"] == 8 * 448
    # Degree 5 with one vector is in both ablations.
    assert rows["degree", 5]["results"] == rows["vectors", 1]["results"]
    groups = sorted((out / "runs").glob("group-*/result.json"))
    assert [len(json.loads(path.read_text())["adapters"]) for path in groups] == [4, 2]
    table = (out / "ablation.md").read_text()
    assert table.count("| bare base |") == 2
    assert (out / "degree.png").exists()
    assert (out / "vectors.png").exists()
    before = [path.stat().st_mtime_ns for path in groups]
    assert runner.invoke(app, arguments).exit_code == 0
    assert [path.stat().st_mtime_ns for path in groups] == before


@pytest.mark.slow
def test_variant_that_the_base_cannot_bear_is_a_row(base: Path, tmp_path: Path) -> None:
    target = {"target_modules": ["q_proj"], "exclude_modules": ["embed_tokens"], "degree": 3}
    run_file = write_run(tmp_path, base, adapter=target, training__steps=1)
    result = CliRunner(env={"OMP_NUM_THREADS": "1"}).invoke(
        app, [str(run_file), "--only", "position", "--out", str(tmp_path / "out")]
    )
    assert result.exit_code == 0, result.output
    assert "| embedding | failed: " in result.output
    assert "| query | 0." in result.output
