"""The loop on real DeepSpeed, each run in processes of its own as a user would start it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from adapters import AdapterStore
from tests.trainer.runs import (
    assert_same_weights,
    final_weights,
    losses,
    propulsion,
    save_tiny_base,
    train,
    write_run,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_base(tmp_path_factory.mktemp("base"))


def train_disturbed(run_file: Path, disturbance: str) -> subprocess.CompletedProcess[str]:
    """Train on one rank; run the code `disturbance` just before the second checkpoint."""
    code = (
        "import trainer.loop as loop, trainer.session as session\n"
        "from trainer.config import load_run\n"
        "save, calls = session.save_checkpoint, []\n"
        "def disturbed(*args):\n"
        f"    if calls: exec({disturbance!r})\n"
        "    calls.append(1)\n"
        "    return save(*args)\n"
        "session.save_checkpoint = disturbed\n"
        f"loop.train(load_run({str(run_file)!r}))\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False
    )


@pytest.fixture(scope="module")
def finished(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    result = train(write_run(folder, base))
    assert result.returncode == 0, result.stderr
    return folder


def test_run_learns_and_leaves_its_results(finished: Path) -> None:
    curve = losses(finished / "out")
    assert len(curve) == 6
    assert curve[-1] < curve[0]
    (result,) = json.loads((finished / "out" / "result.json").read_text())["adapters"]
    assert result["num_test"] == 24
    assert result["trainable_parameters"] == sum(
        tensor.numel() for tensor in final_weights(finished / "out").values()
    )
    version = AdapterStore(finished / "store").verify("tiny")
    assert result["adapter"] == version.reference == "tiny@v1"
    assert version.manifest.metrics == {"test_accuracy": result["score"]}
    assert result["trivial_score"] == 0.5


def test_checkpoints_hold_no_base_weight(finished: Path) -> None:
    weights = load_file(finished / "out" / "checkpoints" / "step-6" / "weights.safetensors")
    assert all("propulsion_delta" in name for name in weights)


def test_cut_off_run_continues_to_the_same_weights(
    base: Path, finished: Path, tmp_path: Path
) -> None:
    run_file = write_run(tmp_path, base)
    cut_off = train_disturbed(run_file, "raise SystemExit(9)")
    assert cut_off.returncode == 9, cut_off.stderr
    assert not (tmp_path / "out" / "adapter").exists()
    again = train(run_file)
    assert again.returncode == 0, again.stderr
    assert "continues from" in again.stderr
    # Steps 4 to 6 stand twice: before the crash and after the resume from step 3.
    curve = losses(tmp_path / "out")
    assert curve[6:] == pytest.approx(curve[3:6], abs=1e-5)
    assert_same_weights(tmp_path / "out", finished / "out", 1e-5)


def test_other_settings_do_not_continue_a_run(base: Path, finished: Path) -> None:
    run_file = finished / "run.yaml"
    before = (finished / "out" / "result.json").read_text()
    refused = train(run_file, "--set", "training.lr=0.5")
    assert refused.returncode == 2
    assert "other settings (adapters.tiny.training.lr)" in refused.stderr
    assert (finished / "out" / "result.json").read_text() == before


def test_finished_run_is_not_run_again(finished: Path) -> None:
    before = (finished / "out" / "metrics.jsonl").read_text()
    again = train(finished / "run.yaml")
    assert again.returncode == 0, again.stderr
    assert "tiny@v1" in again.stdout
    assert (finished / "out" / "metrics.jsonl").read_text() == before
    assert [version.version for version in AdapterStore(finished / "store").list()] == ["v1"]


def test_missing_data_is_told_before_anything_is_written(base: Path, tmp_path: Path) -> None:
    run_file = write_run(tmp_path, base)
    (tmp_path / "test.tsv").unlink()
    result = train(run_file)
    assert result.returncode == 2
    assert "test.tsv: no such data file" in result.stderr
    assert not (tmp_path / "out").exists()


def test_eval_of_base_and_published_adapter(finished: Path) -> None:
    (result,) = json.loads((finished / "out" / "result.json").read_text())["adapters"]
    predictions = finished / "predictions.jsonl"
    for adapter, accuracy in {"tiny": result["score"], None: result["base_score"]}.items():
        chosen = ["--adapter", adapter, "--predictions", str(predictions)] if adapter else []
        done = propulsion("eval", str(finished / "run.yaml"), *chosen)
        assert done.returncode == 0, done.stderr
        assert f"accuracy {accuracy:.3f} on 24 records" in done.stdout
    assert len(predictions.read_text().splitlines()) == 24


def test_adapter_of_another_base_is_refused(finished: Path, tmp_path: Path) -> None:
    other = save_tiny_base(tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    weights["model.norm.weight"] += 1
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    done = propulsion(
        "eval", str(finished / "run.yaml"), "--adapter", "tiny", "--set", f"base={other}"
    )
    assert done.returncode == 2
    assert "tiny@v1" in done.stderr
    assert str(other) in done.stderr
    assert "Traceback" not in done.stderr


def test_full_disk_leaves_the_checkpoint_before(base: Path, tmp_path: Path) -> None:
    run_file = write_run(tmp_path, base)
    failed = train_disturbed(
        run_file,
        "import resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n",
    )
    assert failed.returncode == 1
    assert "step-6 cannot be written" in failed.stderr
    assert [path.name for path in (tmp_path / "out" / "checkpoints").iterdir()] == ["step-3"]
    assert train(run_file).returncode == 0
