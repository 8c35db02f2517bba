"""Nothing of a base stays in memory when its engine is stopped: adapters may join a run often."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.trainer.runs import save_tiny_base, write_run

CODE = """
import gc, sys, weakref
from trainer.config import load_run
from trainer.joining import count_queued
from trainer.ranks import join_ranks
from trainer.loop import train
from trainer.session import Session
kept = []
run_session = Session.run
def watched(self):
    result = run_session(self)
    kept.append(weakref.ref(self._trained.adapted.model))
    self.close()
    return result
Session.run = watched
train(load_run(sys.argv[1]))
gc.collect()
print([model() is None for model in kept])
"""


@pytest.mark.slow
# At stage 3 DeepSpeed keeps the rank's share of a base that it once divided.
@pytest.mark.parametrize("stage", [0, 2])
def test_stopped_engine_lets_its_base_go(tmp_path: Path, stage: int) -> None:
    run = write_run(tmp_path, save_tiny_base(tmp_path / "base"), deepspeed__stage=stage)
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(run)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[True]"
