import shutil
from pathlib import Path

import pytest

from tests.trainer.runs import save_tiny_base, write_run
from trainer.config import load_run
from trainer.identity import fingerprint_of, run_identity


def identity(path: Path, *settings: str) -> dict[str, object]:
    run = load_run(path, list(settings))
    return run_identity(run, fingerprint_of(run.base))


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    save_tiny_base(tmp_path / "here" / "base")
    return write_run(tmp_path / "here", Path("base"))


@pytest.mark.parametrize(
    "setting", ["training.lr=0.5", "seed=3", "adapter.degree=5", "data.max_length=12"]
)
def test_what_decides_the_weights_counts(run_file: Path, setting: str) -> None:
    assert identity(run_file, setting) != identity(run_file)


@pytest.mark.parametrize(
    "setting",
    [
        "checkpoints.every=7",
        "output_dir=b",
        "batching.packing=true",
        "deepspeed.stage=3",
        "data.test_limit=3",
    ],
)
def test_what_does_not_decide_them_does_not(run_file: Path, setting: str) -> None:
    assert identity(run_file, setting) == identity(run_file)


def test_files_count_by_content_and_not_by_place(run_file: Path, tmp_path: Path) -> None:
    before = identity(run_file)
    assert str(tmp_path) not in str(before)
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    moved = tmp_path / "there" / run_file.name
    assert identity(moved) == before
    with (tmp_path / "there" / "train.tsv").open("a") as file:
        file.write("the film is good\t1\n")
    assert identity(moved) != before


def test_test_records_count_where_they_choose_the_weights(run_file: Path) -> None:
    stopping = ["training.eval_every=2", "training.early_stop={patience: 1}"]
    assert identity(run_file, *stopping) != identity(run_file, *stopping, "data.test_limit=3")
