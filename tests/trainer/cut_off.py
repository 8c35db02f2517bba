"""Trains runs until the checkpoint of a step: `python -m tests.trainer.cut_off STEP RUN.yaml …`."""

import sys
from pathlib import Path

from trainer.config import load_run
from trainer.loop import train
from trainer.progress import Progress


class CutOffError(Exception):
    pass


if __name__ == "__main__":
    step = int(sys.argv[1])

    def leave(path: Path, progress: Progress) -> None:
        if progress.step == step:
            raise CutOffError

    for run_file in sys.argv[2:]:
        try:
            train(load_run(run_file), on_checkpoint=leave)
        except CutOffError:
            continue
        sys.exit(f"{run_file} was not cut off")
