"""The server under traffic, in a process of its own."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx

STARTUP_SECONDS = 300


class Server:
    """`propulsion serve` in a session of its own, so that Ctrl-C reaches the benchmark alone."""

    def __init__(self, base: Path, store: Path, log: Path, args: argparse.Namespace):
        self.log = log
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        command = [
            *(sys.executable, "-m", "propulsion", "serve", "--dtype", "float32"),
            *("--base", str(base), "--store", str(store), "--port", str(port)),
            *("--max-adapters", str(args.slots), "--max-cpu-adapters", str(args.host_adapters)),
            # Few blocks, which are all in use soon: memory touched for the first time is no leak.
            *("--", "--num-gpu-blocks-override", str(8 * args.clients)),
        ]
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )

    def wait_until_ready(self) -> None:
        """Return once it serves; raises RuntimeError with the end of its log if it does not."""
        deadline = time.monotonic() + STARTUP_SECONDS
        while self.process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/health", timeout=5).status_code == 200:
                    return
            time.sleep(0.2)
        raise RuntimeError(f"the server did not start:\n{self.log.read_text()[-4000:]}")

    def memory(self) -> dict[str, float]:
        """MiB resident, of the server's process and of those it started."""
        import psutil

        def mib(process: psutil.Process) -> float:
            try:
                return process.memory_info().rss / 2**20
            except psutil.NoSuchProcess:
                return 0.0

        try:
            own = psutil.Process(self.process.pid)
            sizes = {"server": mib(own), "engine": sum(map(mib, own.children(recursive=True)))}
        except psutil.NoSuchProcess:
            sizes = {"server": 0.0, "engine": 0.0}
        return {**sizes, "all": sum(sizes.values())}

    def stop(self) -> int:
        """Stop it as an operator would; its exit code."""
        self.process.terminate()
        try:
            return self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            return -signal.SIGKILL
        finally:
            # The engine too, should it have outlived the server.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
