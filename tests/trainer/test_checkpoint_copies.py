"""Checkpoints that are copied to a bucket or a folder, and runs that go on from there."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from propulsion.errors import ConfigError, StoreUnavailableError
from tests.adapters.conftest import _s3_server, bucket, s3_server  # noqa: F401
from tests.trainer.runs import assert_same_weights, save_tiny_base, train, write_run
from trainer.checkpoint import latest_checkpoint
from trainer.checkpoint_copies import CheckpointCopies


@pytest.fixture(params=["folder", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path / "copies")
    return f"s3://{request.getfixturevalue('bucket')}/copies"


def write_checkpoint(output_dir: Path, step: int, text: str = "") -> Path:
    path = output_dir / "checkpoints" / f"step-{step}"
    path.mkdir(parents=True)
    for name in ("weights.safetensors", "optimizer.safetensors", "state.json"):
        (path / name).write_text(f"{name} {step} {text}")
    return path


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_newest_copies_are_kept_and_the_last_one_comes_back(url: str, tmp_path: Path) -> None:
    run, other = (CheckpointCopies(url, name, keep=2) for name in ("run", "other"))
    output_dir = tmp_path / "out"
    for step in (5, 10, 100):
        (output_dir / "best").mkdir(parents=True, exist_ok=True)
        (output_dir / "best" / "a.safetensors").write_text(f"best at {step}")
        run.push(write_checkpoint(output_dir, step))
    assert run.fetch(output_dir) is None, "it has checkpoints of its own"
    assert other.fetch(tmp_path / "elsewhere") is None
    fetched = run.fetch(tmp_path / "fetched")
    assert fetched == latest_checkpoint(tmp_path / "fetched")
    assert fetched is not None
    assert fetched.name == "step-100"
    assert contents(fetched) == contents(output_dir / "checkpoints" / "step-100")
    assert contents(tmp_path / "fetched" / "best") == {"a.safetensors": "best at 100"}
    assert sorted(run._steps()) == [10, 100]


def test_a_copy_that_was_cut_off_is_passed_over_and_written_anew(url: str, tmp_path: Path) -> None:
    copies = CheckpointCopies(url, "run", keep=5)
    copies.push(write_checkpoint(tmp_path / "out", 5))
    half = write_checkpoint(tmp_path / "out", 10)
    (half / "state.json").unlink()
    copies.push(half)
    fetched = copies.fetch(tmp_path / "fetched")
    assert fetched is not None
    assert fetched.name == "step-5"
    (half / "state.json").write_text("whole now")
    copies.push(half)
    fetched = copies.fetch(tmp_path / "again")
    assert fetched is not None
    assert fetched.name == "step-10"


def test_clear_takes_the_copies_of_one_run_alone(url: str, tmp_path: Path) -> None:
    for name in ("run", "run-2"):
        CheckpointCopies(url, name, keep=1).push(write_checkpoint(tmp_path / name, 5))
    CheckpointCopies(url, "run", keep=1).clear()
    assert CheckpointCopies(url, "run", keep=1).fetch(tmp_path / "a") is None
    assert CheckpointCopies(url, "run-2", keep=1).fetch(tmp_path / "b") is not None


def test_a_bucket_that_is_not_there_is_told(s3_server: object, tmp_path: Path) -> None:  # noqa: F811
    copies = CheckpointCopies("s3://no-such-bucket/x", "run", keep=1)
    with pytest.raises(StoreUnavailableError, match=r"copies at s3://no-such-bucket/x/run"):
        copies.push(write_checkpoint(tmp_path / "out", 5))


def test_a_url_without_a_bucket_is_refused() -> None:
    with pytest.raises(ConfigError, match="names no bucket"):
        CheckpointCopies("s3://", "run", keep=1)


@pytest.mark.slow
def test_a_run_whose_folder_is_lost_goes_on_from_the_bucket(bucket: str, tmp_path: Path) -> None:  # noqa: F811
    base = save_tiny_base(tmp_path / "base")
    assert train(write_run(tmp_path / "undisturbed", base)).returncode == 0
    copies = f"s3://{bucket}/runs"
    run = write_run(tmp_path / "lost", base, checkpoints={"every": 2, "copy_to": copies})
    cut = subprocess.run(
        [sys.executable, "-m", "tests.trainer.cut_off", "4", str(run)],
        capture_output=True,
        text=True,
    )
    assert cut.returncode == 0, cut.stderr
    shutil.rmtree(tmp_path / "lost" / "out")
    resumed = train(run)
    assert resumed.returncode == 0, resumed.stderr
    assert "continues from" in resumed.stdout + resumed.stderr
    assert_same_weights(tmp_path / "lost" / "out", tmp_path / "undisturbed" / "out", 1e-6)
    again = train(run, "--overwrite")
    assert again.returncode == 0, again.stderr
    assert "continues from" not in again.stdout + again.stderr


@pytest.mark.slow
def test_a_run_does_not_start_anew_where_its_copies_cannot_be_read(
    s3_server: object,  # noqa: F811
    tmp_path: Path,
) -> None:
    base = save_tiny_base(tmp_path / "base")
    checkpoints = {"every": 2, "copy_to": "s3://no-such-bucket/x"}
    done = train(write_run(tmp_path / "run", base, checkpoints=checkpoints))
    assert done.returncode == 2
    assert "s3://no-such-bucket/x/tiny cannot be used now" in done.stderr
    assert "Traceback" not in done.stderr


SPOILED = """
import shutil, sys
from pathlib import Path
from trainer.config import load_run
from trainer.loop import train

copies = Path(sys.argv[2])

def spoil(path, progress):
    if progress.step == 2:
        shutil.rmtree(copies)
        copies.write_text("no folder any more")

train(load_run(sys.argv[1]), on_checkpoint=spoil)
"""


@pytest.mark.slow
def test_a_run_goes_on_when_a_checkpoint_cannot_be_copied(tmp_path: Path) -> None:
    copies = tmp_path / "copies"
    base = save_tiny_base(tmp_path / "base")
    run = write_run(tmp_path / "run", base, checkpoints={"every": 2, "copy_to": str(copies)})
    done = subprocess.run(
        [sys.executable, "-c", SPOILED, str(run), str(copies)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "step-4 is not copied" in done.stdout + done.stderr
    assert latest_checkpoint(tmp_path / "run" / "out") is not None
