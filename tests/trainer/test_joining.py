"""An adapter is queued while its run goes on."""

from pathlib import Path

import pytest

from propulsion.errors import ConfigError, DataError
from tests.trainer.runs import assert_same_weights, save_tiny_base, train_all, write_run
from trainer.config import load_run
from trainer.joining import accept_queued, queue_job, queued_jobs
from trainer.result import read_result


def test_run_without_a_folder_cannot_be_joined(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path, tmp_path))
    with pytest.raises(ConfigError, match="no such run yet"):
        queue_job(run, run.job.model_copy(update={"name": "more"}))


def test_data_are_checked_before_an_adapter_is_queued(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path, tmp_path))
    run.output_dir.mkdir()
    more = run.job.model_copy(update={"name": "more"}, deep=True)
    more.data.train = tmp_path / "missing.tsv"
    with pytest.raises(DataError, match=r"missing\.tsv"):
        queue_job(run, more)
    assert queued_jobs(run.output_dir) == []


def test_queue_keeps_its_order(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path, tmp_path))
    run.output_dir.mkdir()
    for name in ("z", "a", "m"):
        queue_job(run, run.job.model_copy(update={"name": name}))
    assert [job.name for job in queued_jobs(run.output_dir)] == ["z", "a", "m"]
    with pytest.raises(ConfigError, match="'a' already"):
        queue_job(run, run.job.model_copy(update={"name": "a"}))


def test_adapter_whose_data_are_gone_does_not_end_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = load_run(write_run(tmp_path, tmp_path))
    run.output_dir.mkdir()
    other = load_run(write_run(tmp_path / "other", tmp_path, name="other"))
    kept = run.job.model_copy(update={"name": "kept"})
    for job in (other.job, kept):
        queue_job(run, job)
    other.job.data.train.unlink()
    # One that has joined already is a part of the run.
    assert [job.name for job in accept_queued(run, {"other"})] == ["other", "kept"]
    assert [job.name for job in accept_queued(run, set())] == ["kept"]
    assert "other cannot join" in capsys.readouterr().err
    assert [job.name for job in queued_jobs(run.output_dir)] == ["kept"]


def test_heads_of_another_shape_cannot_join(tmp_path: Path) -> None:
    task = {"type": "classification"}
    run = load_run(write_run(tmp_path, tmp_path, task=task))
    run.output_dir.mkdir()
    more = run.job.model_copy(update={"name": "more"}, deep=True)
    more.data.records.labels["2"] = "dull"
    with pytest.raises(ConfigError, match="different numbers of labels"):
        queue_job(run, more)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [2, 3])
def test_adapter_joins_between_two_steps(tmp_path: Path, stage: int) -> None:
    base = save_tiny_base(tmp_path / "base")
    first = write_run(tmp_path / "first", base, name="first")
    second = write_run(tmp_path / "second", base, name="second", seed=4)
    together = write_run(
        tmp_path / "together", base, name="first", deepspeed__stage=stage, training__steps=6
    )
    # The rank that writes the first checkpoint queues the second adapter, at step 3.
    (tmp_path / "together" / "joining.yaml").write_text(load_run(second).job.model_dump_json())
    train_all(first, second, together, ranks=2, module="tests.trainer.joined")
    for name in ("first", "second"):
        assert_same_weights(
            tmp_path / "together" / "out", tmp_path / name / "out", 1e-6, adapter=name
        )
    result = read_result(tmp_path / "together" / "out")
    assert [one.name for one in result.adapters] == ["first", "second"]
    assert result.steps == 4 + 6
