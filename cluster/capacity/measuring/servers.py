"""Real replicas to measure: `propulsion serve` in processes of their own, on loopback."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from propulsion.errors import PropulsionError

_STARTUP_SECONDS = 600


@dataclass(frozen=True)
class ServerOptions:
    """How the replicas are served; the names are those of `propulsion serve` and of vLLM."""

    base: Path
    store: Path
    max_adapters: int = 32
    max_cpu_adapters: int = 96
    max_num_seqs: int = 32
    max_num_batched_tokens: int = 2048
    max_model_len: int = 512
    dtype: str = "auto"
    own_core: bool = False
    """Whether each replica is bound to one processor core, the n-th to the n-th."""


class Replica:
    """A server. `boot_seconds` is from its start until it was healthy."""

    def __init__(self, options: ServerOptions, log: Path, core: int):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.boot_seconds = 0.0
        self._log = log
        command = [
            *(sys.executable, "-m", "propulsion", "serve", "--port", str(port)),
            *("--base", str(options.base), "--store", str(options.store)),
            *("--max-adapters", str(options.max_adapters), "--dtype", options.dtype),
            *("--max-cpu-adapters", str(options.max_cpu_adapters)),
            *("--max-model-len", str(options.max_model_len), "--"),
            *("--max-num-seqs", str(options.max_num_seqs)),
            *("--max-num-batched-tokens", str(options.max_num_batched_tokens)),
            # Requests are random tokens, and all that is read is to be computed.
            "--no-enable-prefix-caching",
        ]
        environment = dict(os.environ)
        if options.own_core:
            command = ["taskset", "--cpu-list", str(core), *command]
            environment |= {"VLLM_CPU_OMP_THREADS_BIND": str(core), "OMP_NUM_THREADS": "1"}
        self._began = time.monotonic()
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )

    def wait_until_ready(self) -> None:
        """Return once it serves.

        Raises:
            PropulsionError: it does not; its log says why.
        """
        import httpx

        while self._process.poll() is None and time.monotonic() < self._began + _STARTUP_SECONDS:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/health", timeout=5).status_code == 200:
                    self.boot_seconds = time.monotonic() - self._began
                    return
            time.sleep(0.1)
        end = self._log.read_text(errors="replace")[-2000:]
        raise PropulsionError(f"a replica did not start (see {self._log}):\n{end}")

    def stop(self) -> None:
        """Stop it, and its engine should it outlive it."""
        self._process.terminate()
        try:
            self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            pass
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


@contextlib.contextmanager
def running_replicas(options: ServerOptions, count: int, logs: Path) -> Iterator[list[Replica]]:
    """So many replicas, all of them started at once and stopped in the end."""
    logs.mkdir(parents=True, exist_ok=True)
    cores = sorted(os.sched_getaffinity(0))
    replicas: list[Replica] = []
    try:
        for index in range(count):
            log = logs / f"replica-{index}.log"
            replicas.append(Replica(options, log, cores[index % len(cores)]))
        for replica in replicas:
            replica.wait_until_ready()
        yield replicas
    finally:
        for replica in replicas:
            replica.stop()
