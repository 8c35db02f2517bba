"""As `tests.trainer.several`; a run with a file `joining.yaml` beside it gets that adapter, too.

It is queued at the run's first checkpoint, as another process would do it.
"""

import sys
from pathlib import Path

import torch

from trainer.config import load_job, load_run
from trainer.joining import count_queued, queue_job
from trainer.loop import train

if __name__ == "__main__":
    for path in map(Path, sys.argv[1:]):
        run = load_run(path)
        joining = path.with_name("joining.yaml")

        def join(*_: object, run=run, joining=joining) -> None:
            is_first = torch.distributed.get_rank() == 0 and not count_queued(run.output_dir)
            if joining.exists() and is_first:
                queue_job(run, load_job(joining))

        train(run, on_checkpoint=join)
