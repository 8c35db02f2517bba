"""Trains several run files, one after the other, in one process per rank."""

import sys
import traceback

from trainer.config import load_run
from trainer.loop import train

if __name__ == "__main__":
    for path in sys.argv[1:]:
        try:
            train(load_run(path))
        except Exception:
            traceback.print_exc()
            sys.exit(f"{path} failed")
