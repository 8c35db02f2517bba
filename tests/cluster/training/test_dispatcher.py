"""The dispatcher's decisions, one look at a time, on a head whose answers the test writes.

What a real head does, and what its loss does, is in `test_queue.py`.
"""

from pathlib import Path

import pytest

from cluster.training.dispatcher import Dispatcher
from cluster.training.queue_folder import QueueFolder, RunState
from cluster.training.ray_jobs import HeadUnreachableError, JobInfo, JobState, RayJobs
from tests.trainer.runs import write_run
from trainer.config import load_run


class ScriptedHead(RayJobs):
    """Answers what the test has written, where a real head would take minutes to come to it."""

    def __init__(self) -> None:
        super().__init__("http://scripted", "python")
        self.states: dict[str, JobState] = {}
        self.cpus = 8.0
        self.is_gone = False

    def submit(self, job_id: str, spec: Path) -> None:
        self._answer()
        assert spec.exists()
        self.states[job_id] = "running"

    def info(self, job_id: str) -> JobInfo:
        self._answer()
        return JobInfo(job_id, self.states.get(job_id, "lost"), "as the test says")

    def stop(self, job_id: str) -> bool:
        self._answer()
        self.states[job_id] = "stopped"
        return True

    def logs(self, job_id: str) -> str:
        return "(RayTrainWorker) step 1\nerror: the data are gone\n"

    def resources(self) -> dict[str, float]:
        self._answer()
        return {"CPU": self.cpus}

    def _answer(self) -> None:
        if self.is_gone:
            raise HeadUnreachableError("no head")


class Scene:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.queue = QueueFolder(folder / "queue")
        self.head = ScriptedHead()
        self.notes: list[str] = []
        self.dispatcher = Dispatcher(self.queue, self.head, self.notes.append)
        self.ids: dict[str, str] = {}

    def submit(self, name: str, **changes) -> None:
        run = load_run(write_run(self.folder / name, self.folder, name=name, **changes))
        self.ids[name] = self.queue.submit(run)

    def look(self, **jobs: JobState) -> None:
        """One look, after the jobs of those runs came to those states."""
        for name, state in jobs.items():
            job = self[name].ray_job
            assert job is not None
            self.head.states[job] = state
        self.dispatcher.step()

    def __getitem__(self, name: str) -> RunState:
        return self.queue.find(self.ids[name]).state


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_a_job_without_an_exit_code_starts_again_until_it_was_lost_too_often(scene: Scene) -> None:
    scene.queue.folder.mkdir()
    (scene.queue.folder / "queue.yaml").write_text("max_restarts: 2\n")
    scene.submit("one")
    scene.look()
    for attempt in (2, 3):
        scene.look(one="lost")
        assert (scene["one"].state, scene["one"].attempt) == ("running", attempt)
    scene.look(one="lost")
    assert scene["one"].state == "failed"
    assert "lost 4 times" in scene["one"].message


def test_a_failed_run_tells_its_error_and_is_not_tried_again(scene: Scene) -> None:
    scene.submit("one")
    scene.look()
    scene.look(one="failed")
    assert (scene["one"].state, scene["one"].message) == ("failed", "error: the data are gone")
    scene.look()
    assert list(scene.head.states) == [f"{scene.ids['one']}-1"]


@pytest.mark.parametrize("end", ["failed", "cancelled"])
def test_a_pack_that_breaks_is_trained_one_by_one(scene: Scene, end: str) -> None:
    for name in ("one", "two", "three"):
        scene.submit(name)
    scene.look()
    assert len({scene[name].job for name in scene.ids}) == 1
    if end == "failed":
        scene.look(one="failed")
        left = ["one", "two", "three"]
    else:
        scene.queue.cancel("one")
        scene.look()
        left = ["two", "three"]
        assert scene["one"].state == "cancelled"
    scene.look()
    jobs = {scene[name].job for name in left}
    assert jobs == {scene.ids[name] for name in left}
    assert all(scene[name].state == "running" for name in left)


def test_a_head_that_is_gone_is_told_once_and_changes_nothing(scene: Scene) -> None:
    scene.submit("one")
    scene.look()
    scene.submit("two", cluster={"pack": False})
    scene.head.is_gone = True
    for _ in range(3):
        scene.look()
    assert scene.notes[1:] == ["no head. The queue is kept; waiting for the head"]
    assert (scene["one"].state, scene["two"].state) == ("running", "queued")
    scene.head.is_gone = False
    scene.look()
    assert (scene["one"].attempt, scene["two"].state) == (1, "running")


def test_a_dispatcher_that_ends_between_writing_and_submitting_loses_nothing(scene: Scene) -> None:
    scene.submit("one")
    scene.look()
    scene.head.states.clear()
    scene.dispatcher = Dispatcher(scene.queue, scene.head, scene.notes.append)
    scene.look()
    assert scene.head.states == {f"{scene.ids['one']}-2": "running"}


def test_status_says_why_a_run_can_never_start(scene: Scene) -> None:
    scene.submit("huge", cluster={"workers": 9})
    scene.look()
    assert scene["huge"].state == "queued"
    assert scene["huge"].message == "it asks for 9 CPUs, and there are 8 in the cluster"
    scene.head.cpus = 16
    scene.look()
    assert (scene["huge"].state, scene["huge"].message) == ("running", "")


def test_a_slip_in_the_settings_is_told_once_and_what_held_before_holds(scene: Scene) -> None:
    scene.submit("one")
    (scene.queue.folder / "queue.yaml").write_text("teams: {default: {cpu: 1}}\n")
    scene.look()
    scene.look()
    assert scene["one"].state == "running"
    assert sum("teams.default.cpu: unknown key" in note for note in scene.notes) == 1


def test_a_run_without_its_result_has_failed(scene: Scene) -> None:
    scene.submit("one")
    scene.look()
    scene.look(one="succeeded")
    assert scene["one"].state == "failed"
    assert "result.json is missing" in scene["one"].message


def test_a_job_stopped_through_ray_is_cancelled(scene: Scene) -> None:
    scene.submit("one")
    scene.look()
    scene.look(one="stopped")
    assert scene["one"].state == "cancelled"
