"""A queue's files: what is refused, what survives, what belongs together."""

from pathlib import Path

import pytest

from cluster.training.dispatcher import only_dispatcher
from cluster.training.pack import job_spec, packed_with
from cluster.training.queue_folder import QueueFolder, RunState
from cluster.training.quotas import in_order
from propulsion.errors import ConfigError, PropulsionError
from tests.trainer.runs import write_run
from trainer.config import RunConfig, load_run


@pytest.fixture
def queue(tmp_path: Path) -> QueueFolder:
    return QueueFolder(tmp_path / "queue")


def run(folder: Path, name: str, **changes) -> RunConfig:
    return load_run(write_run(folder / name, folder, name=name, **changes))


def test_a_run_is_read_back_as_it_was_submitted(queue: QueueFolder, tmp_path: Path) -> None:
    one = run(tmp_path, "one", cluster={"workers": [1, 4], "priority": 3})
    run_id = queue.submit(one)
    found = QueueFolder(queue.folder).find(run_id)
    assert found.run == one
    assert found.state == RunState()
    assert queue.find("one").id == run_id
    state = RunState(state="running", job=run_id, attempt=2, started=5.0)
    queue.write_state(run_id, state)
    assert queue.find(run_id).state == state


def test_unknown_team_and_unknown_key_are_refused(queue: QueueFolder, tmp_path: Path) -> None:
    queue.folder.mkdir()
    file = queue.folder / "queue.yaml"
    file.write_text("teams: {search: {gpus: 4}, ads: {}}\n")
    with pytest.raises(ConfigError, match="no team 'default'; it has ads, search"):
        queue.submit(run(tmp_path, "one"))
    file.write_text("teams: {search: {gpu: 4}}\n")
    with pytest.raises(ConfigError, match=r"teams\.search\.gpu: unknown key"):
        queue.config()
    with pytest.raises(ConfigError, match=r"cluster\.worker: unknown key; did you mean 'workers'"):
        run(tmp_path, "two", cluster={"worker": 2})
    with pytest.raises(ConfigError, match="smaller number comes first"):
        run(tmp_path, "three", cluster={"workers": [4, 2]})


def test_two_runs_may_not_write_to_one_folder(queue: QueueFolder, tmp_path: Path) -> None:
    one = run(tmp_path, "one")
    run_id = queue.submit(one)
    with pytest.raises(ConfigError, match=f"{run_id} is queued and writes to"):
        queue.submit(one)
    queue.write_state(run_id, RunState(state="failed"))
    assert queue.submit(one) != run_id


def test_unknown_and_ambiguous_ids_are_told(queue: QueueFolder, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no run 'x'"):
        queue.find("x")
    for name in ("same-1", "same-2"):
        queue.submit(run(tmp_path, name))
    with pytest.raises(ConfigError, match="several runs begin with 'same'"):
        queue.cancel("same")


def test_cancelled_run_does_not_start(queue: QueueFolder, tmp_path: Path) -> None:
    kept, dropped = queue.submit(run(tmp_path, "kept")), queue.submit(run(tmp_path, "dropped"))
    queue.cancel("dropped")
    assert [one.id for one in in_order(queue.runs())] == [kept]
    queue.write_state(dropped, RunState(state="cancelled"))
    with pytest.raises(ConfigError, match="is over: it was cancelled"):
        queue.cancel(dropped)


def test_a_queue_has_one_dispatcher(queue: QueueFolder) -> None:
    with (
        only_dispatcher(queue),
        pytest.raises(ConfigError, match="another dispatcher"),
        only_dispatcher(queue),
    ):
        pass
    with only_dispatcher(queue):
        pass


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PropulsionError, match="cannot be written"):
        QueueFolder(tmp_path / "file").submit(run(tmp_path, "one"))


def test_runs_that_share_all_but_their_adapters_are_packed(
    queue: QueueFolder, tmp_path: Path
) -> None:
    different = {
        "first": {},
        "another-precision": {"deepspeed__dtype": "bf16"},
        "another-seed": {"seed": 1},
        "another-task": {"task": {"type": "causal_lm"}},
        "another-team": {"cluster": {"team": "other"}},
        "more-workers": {"cluster": {"workers": 2}},
        "alone": {"cluster": {"pack": False}},
        "begun": {},
        "other-adapter": {"adapter": {"degree": 15}, "training__lr": 0.5, "training__steps": 9},
        "urgent": {"cluster": {"priority": 9}},
        "one-too-many": {},
    }
    queue.folder.mkdir()
    (queue.folder / "queue.yaml").write_text("teams: {default: {}, other: {}}\n")
    for name, changes in different.items():
        queue.submit(run(tmp_path, name, **changes))
    (tmp_path / "begun" / "out" / "checkpoints" / "step-3").mkdir(parents=True)
    waiting = queue.runs()
    members = packed_with(waiting[0], waiting, most=3)
    assert [one.run.name for one in members] == ["first", "other-adapter", "urgent"]
    spec = job_spec(members, "pack", tmp_path / "packed")
    assert [job.name for job in spec.run.jobs] == ["first", "other-adapter", "urgent"]
    assert spec.run.jobs[1].training.steps == 9
    lineage = spec.run.jobs[1].publish.lineage
    assert lineage == {"run": "other-adapter", "queued_as": members[1].id, "job": "pack"}
    assert spec.members[1].output_dir == tmp_path / "other-adapter" / "out"


def test_adapters_of_one_name_are_not_packed(queue: QueueFolder, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        queue.submit(run(tmp_path / folder, "same"))
    waiting = queue.runs()
    assert len(packed_with(waiting[0], waiting, most=4)) == 1


def test_heads_of_another_shape_are_not_packed(queue: QueueFolder, tmp_path: Path) -> None:
    task = {"task": {"type": "classification"}}
    labels = {"0": "bad", "1": "good", "2": "so-so"}
    queue.submit(run(tmp_path, "two", **task))
    records = {"format": "tsv", "text": "sentence", "label": "label", "labels": labels}
    queue.submit(run(tmp_path, "three", **task, data__records=records))
    waiting = queue.runs()
    assert len(packed_with(waiting[0], waiting, most=4)) == 1
