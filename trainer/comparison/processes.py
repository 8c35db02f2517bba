"""Starts the workers, one at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from trainer.comparison.worker import FAILED, INTERRUPTED, Order

_PATIENCE = 30.0
"""Seconds that a worker has to stop when it is interrupted."""
_RANK = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
"""What would tell a worker that it is one of several."""


def run_worker(order: Order) -> str | None:
    """Carry out an order in a process of its own; its output goes to a `.log` beside its folder.

    Returns:
        None, or why it failed.

    Raises:
        KeyboardInterrupt: this process or the worker was interrupted; the worker has ended.
    """
    folder = order.run.output_dir
    path, log_file = (folder.with_name(folder.name + end) for end in (".order.json", ".log"))
    order.write(path)
    command = [sys.executable, "-m", "trainer.comparison.worker", str(path)]
    with log_file.open("ab") as log:
        began = log.tell()
        environment = {name: value for name, value in os.environ.items() if name not in _RANK}
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        try:
            status = process.wait()
        except KeyboardInterrupt:
            _stop(process)
            raise
    if status == 0:
        path.unlink()
        return None
    if status == INTERRUPTED:
        raise KeyboardInterrupt
    return _reason(status, log_file, began)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGINT)
    try:
        process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _reason(status: int, log: Path, began: int) -> str:
    with log.open("rb") as file:
        file.seek(began)
        lines = file.read().decode("utf-8", "replace").split("\n")
    if status == FAILED:
        said = [line for line in lines if line.startswith("error: ")]
        return said[-1].removeprefix("error: ")
    if status < 0:
        return f"the process was ended by signal {-status}, as the system does when memory is full"
    told = [line.strip() for line in lines if line.strip()]
    return f"{told[-1] if told else 'no message'} (see {log})"
