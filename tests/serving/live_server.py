"""A real server in its own process, on a free loopback port."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

COMMAND = "import typer; from serving.cli import serve; typer.run(serve)"
STARTUP_SECONDS = 240


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class LiveServer:
    """Starts `serve` and waits until it is healthy; `log` holds all it printed."""

    def __init__(self, base: Path, store: Path, log: Path, *options: str, key: str | None = None):
        self.url = f"http://127.0.0.1:{free_port()}"
        self.log = log
        arguments = [
            *("--base", str(base), "--store", str(store), "--dtype", "float32"),
            *("--port", self.url.rpartition(":")[2], "--max-model-len", "256"),
            *options,
        ]
        environment = {k: v for k, v in os.environ.items() if k != "PROPULSION_API_KEY"}
        if key:
            environment["PROPULSION_API_KEY"] = key
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", COMMAND, *arguments],
                cwd=Path(__file__).parents[2],
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.client = httpx.Client(base_url=self.url, headers=headers, timeout=120)
        try:
            self._wait_until_healthy()
        except BaseException:
            self.process.kill()
            raise

    def _wait_until_healthy(self) -> None:
        deadline = time.monotonic() + STARTUP_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if self.client.get("/health").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.2)
        raise RuntimeError(f"the server did not start:\n{self.log.read_text()[-4000:]}")

    def complete(self, model: str, prompt: str, max_tokens: int, **options) -> httpx.Response:
        """POST /v1/completions, greedy, with token ids in the answer."""
        body = {
            "model": model,
            "prompt": prompt,
            "max_tokens": max_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "return_token_ids": True,
            **options,
        }
        return self.client.post("/v1/completions", json=body)

    def admin(self, method: str, path: str, body: dict | None = None) -> dict:
        """What a successful request to the admin API answers."""
        response = self.client.request(method, f"/admin/v1{path}", json=body)
        assert response.status_code == 200, response.text
        return response.json()

    def stop(self) -> int:
        """Send SIGTERM unless it has ended, and return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.client.close()
        try:
            return self.process.wait(timeout=120)
        finally:
            self.process.kill()


def engine_processes(server: LiveServer) -> list[int]:
    """Ids of the processes that the server's engines run in."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            command = (entry / "cmdline").read_text()
            if parent == server.process.pid and "EngineCore" in command:
                found.append(int(entry.name))
    return found


def token_ids(response: httpx.Response) -> list[int]:
    """The tokens of a successful answer."""
    assert response.status_code == 200, response.text
    return response.json()["choices"][0]["token_ids"]


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Return once it holds; fails after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.1)


@contextlib.contextmanager
def traffic(work: Callable[[], object], threads: int = 3) -> Iterator[None]:
    """Do `work` again and again beside the block; its failures are the block's."""
    over = threading.Event()

    def repeat() -> None:
        while not over.is_set():
            work()

    with ThreadPoolExecutor(threads) as pool:
        running = [pool.submit(repeat) for _ in range(threads)]
        try:
            yield
        finally:
            over.set()
        for future in running:
            future.result()
