"""How a server ends: all of its processes, whoever the signal reaches, whatever it is doing."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from adapters import AdapterStore, base_fingerprint
from tests.serving import tiny
from tests.serving.live_server import STARTUP_SECONDS, free_port

pytestmark = pytest.mark.slow

PROMPT = tiny.PROMPTS[0]
ROOT = Path(__file__).parents[2]
MAX_TOKENS = 200
END_SECONDS = 60


@pytest.fixture(scope="module")
def options(base: Path, adapter_folders, tmp_path_factory) -> list[str]:
    store = AdapterStore(tmp_path_factory.mktemp("lifecycle"))
    store.publish(adapter_folders["all-15"], "all-15", base_fingerprint=base_fingerprint(base))
    return [
        *("--base", str(base), "--store", str(store.path), "--dtype", "float32"),
        *("--max-model-len", "256", "--max-adapters", "2"),
    ]


class Process:
    """`propulsion serve` as a shell starts it: the leader of a process group of its own."""

    def __init__(self, log: Path, options: list[str]):
        self.url = f"http://127.0.0.1:{free_port()}"
        port = self.url.rpartition(":")[2]
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "propulsion", "serve", "--port", port, *options],
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def health(self) -> int | None:
        """The status of /health; None before the server listens."""
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/health", timeout=10).status_code
        return None

    def wait_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + STARTUP_SECONDS
        while not condition():
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            assert time.monotonic() < deadline, self.log.read_text()[-3000:]
            time.sleep(0.05)

    def members(self) -> list[str]:
        """What runs in its session, the server's own process and those of its engine."""
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                state, _, _, session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
                if int(session) == self.process.pid and state != "Z":
                    found.append((entry / "cmdline").read_text().replace("\0", " "))
        return found

    def wait_until_alone(self) -> None:
        """Return once nothing that it started is left."""
        deadline = time.monotonic() + 20
        while self.members() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert self.members() == []

    def assert_ended(self) -> None:
        """It exits with success, and nothing that it started is left."""
        assert self.process.wait(timeout=END_SECONDS) == 0, self.log.read_text()[-3000:]
        self.wait_until_alone()
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{self.url}/health")


@pytest.fixture
def start(options, tmp_path) -> Iterator[Callable[[], Process]]:
    started: list[Process] = []

    def start() -> Process:
        started.append(Process(tmp_path / f"log-{len(started)}", options))
        return started[-1]

    yield start
    for server in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.process.pid, signal.SIGKILL)
        server.process.wait()


def has_engine(server: Process) -> bool:
    return any("EngineCore" in command for command in server.members())


def test_sigterm_ends_a_server_that_only_just_listens(start):
    server = start()
    server.wait_until(lambda: server.health() == 503)
    server.process.send_signal(signal.SIGTERM)
    server.assert_ended()


@pytest.mark.parametrize("reached", ["the server", "the whole group"])
def test_sigterm_ends_a_server_whose_engine_is_starting(start, reached):
    server = start()
    server.wait_until(lambda: has_engine(server))
    assert server.health() == 503
    if reached == "the server":
        server.process.send_signal(signal.SIGTERM)
    else:
        # As systemd stops a service, and `timeout` a command.
        os.killpg(server.process.pid, signal.SIGTERM)
    server.assert_ended()


def test_ctrl_c_lets_a_running_stream_finish_though_it_reaches_the_engine_too(
    start, base, adapter_folders
):
    wanted = tiny.reference_tokens(base, adapter_folders["all-15"], [PROMPT], MAX_TOKENS)[0]
    server = start()
    server.wait_until(lambda: server.health() == 200)
    body = {
        "model": "all-15",
        "prompt": PROMPT,
        "max_tokens": MAX_TOKENS,
        "temperature": 0,
        "ignore_eos": True,
        "return_token_ids": True,
        "stream": True,
    }
    events: list[str] = []
    with httpx.stream("POST", f"{server.url}/v1/completions", json=body, timeout=120) as answer:
        for line in answer.iter_lines():
            # Blank lines part the events; a second Ctrl-C would not wait for anything.
            if not line:
                continue
            events.append(line.removeprefix("data: "))
            if len(events) == 1:
                # A terminal sends it to all that runs in the foreground.
                os.killpg(server.process.pid, signal.SIGINT)
    assert events.pop() == "[DONE]"
    choices = [json.loads(event)["choices"][0] for event in events]
    assert [i for choice in choices for i in choice["token_ids"] or []] == wanted
    server.assert_ended()


def test_a_server_that_is_killed_takes_its_engine_along(start):
    server = start()
    server.wait_until(lambda: server.health() == 200)
    assert has_engine(server)
    server.process.kill()
    server.process.wait()
    server.wait_until_alone()


def test_a_port_that_is_taken_is_told_in_one_line_and_no_engine_starts(options):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-m", "propulsion", "serve", "--port", port, *options],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=STARTUP_SECONDS,
        )
    assert done.returncode not in (0, None)
    told = [line for line in done.stderr.splitlines() if port in line]
    assert len(told) == 1
    assert "--port" in told[0]
    assert "Traceback" not in done.stderr + done.stdout
    assert "EngineCore" not in done.stderr + done.stdout
