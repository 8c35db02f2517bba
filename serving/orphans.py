"""Ends an engine whose server is gone, even if that was killed and could not say so."""

import os
import signal
import threading
import time
from multiprocessing import connection, parent_process, process

_SERVER_PID = "PROPULSION_SERVER_PID"
_SECONDS_TO_END = 10.0


def announce_server() -> None:
    """Call in the server: engines that this process starts are to end with it."""
    os.environ[_SERVER_PID] = str(os.getpid())


def follow_server() -> None:
    """Call in an engine's process: end when its parent does, if that is a server.

    vLLM's workers watch their engine, but its engine does not watch whoever started it.
    """
    parent = parent_process()
    if parent is not None and os.environ.get(_SERVER_PID) == str(parent.pid):
        threading.Thread(target=_end_after, args=(parent,), daemon=True).start()


def _end_after(parent: process.BaseProcess) -> None:
    connection.wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_SECONDS_TO_END)
    os.kill(os.getpid(), signal.SIGKILL)
