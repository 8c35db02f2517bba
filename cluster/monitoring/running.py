"""Runs programs beside each other until they are told to stop."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from cluster.monitoring.programs import Program
from propulsion.errors import PropulsionError

_READY_SECONDS = 60.0
_STOP_SECONDS = 20.0
_POLL_SECONDS = 0.2


@contextlib.contextmanager
def running(programs: Sequence[Program], logs: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start programs, wait until all are ready, and stop them at the end of the block.

    Args:
        programs: what to run.
        logs: folder of what each prints, `<name>.log`.

    Raises:
        PropulsionError: a port is taken, or a program ends before it is ready.
    """
    for program in programs:
        _check_port(program)
    logs.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(_process(program, logs)) for program in programs]
        for program, process in zip(programs, processes, strict=True):
            _wait_until_ready(program, process, log_of(program, logs))
        yield processes


def log_of(program: Program, logs: Path) -> Path:
    """The file that holds what a program prints."""
    return logs / f"{program.name.lower()}.log"


@contextlib.contextmanager
def stop_signal() -> Iterator[threading.Event]:
    """An event that Ctrl-C, SIGTERM or the terminal's end sets, instead of ending the process."""
    stop = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: stop.set())
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def wait_for_stop(
    stop: threading.Event,
    programs: Sequence[Program],
    processes: Sequence[subprocess.Popen[bytes]],
    logs: Path,
) -> None:
    """Return when `stop` is set.

    Raises:
        PropulsionError: a program ended by itself.
    """
    while not stop.wait(_POLL_SECONDS):
        for program, process in zip(programs, processes, strict=True):
            if process.poll() is not None:
                raise _ended(program, process, log_of(program, logs))


@contextlib.contextmanager
def _process(program: Program, logs: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log_of(program, logs).open("wb") as output:
        process = subprocess.Popen(
            program.command,
            env={**os.environ, **program.environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # A terminal's Ctrl-C is for us, who then stop it.
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _check_port(program: Program) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", program.port))
        except OSError as error:
            raise PropulsionError(
                f"port {program.port} for {program.name} cannot be used ({error.strerror}): is it "
                "running already? Stop that one, or choose another port"
            ) from error


def _wait_until_ready(program: Program, process: subprocess.Popen[bytes], log: Path) -> None:
    import httpx

    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise _ended(program, process, log)
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(program.url + program.ready_path, timeout=5).status_code == 200:
                return
        time.sleep(_POLL_SECONDS)
    raise PropulsionError(f"{program.name} was not ready in {_READY_SECONDS:.0f} s: see {log}")


def _ended(program: Program, process: subprocess.Popen[bytes], log: Path) -> PropulsionError:
    lines = log.read_text(errors="replace").strip().splitlines()
    last = f": {lines[-1]}" if lines else ""
    return PropulsionError(f"{program.name} ended with code {process.returncode} (see {log}){last}")
