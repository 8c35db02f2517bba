"""Trains every method on a tiny base in one process, and tells what came of each.

`python -m tests.trainer.comparison.train_each llama|bert FOLDER`
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

from propulsion.errors import ConfigError
from tests.trainer.comparison.bases import method_run, save_base
from trainer.comparison.methods import METHODS
from trainer.comparison.worker import Order, carry_out

kind, folder = sys.argv[1], Path(sys.argv[2])
base = save_base(kind, folder / "base")
told = {}
for method in METHODS:
    run = method_run(method, kind, folder / method, base, training__steps=3, training__eval_every=1)
    try:
        measured = carry_out(Order(run, method, {}))
    except ConfigError as error:
        told[method] = {"failure": str(error)}
    else:
        assert measured is not None
        told[method] = asdict(measured)
(folder / "told.json").write_text(json.dumps(told))
