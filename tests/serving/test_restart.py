"""What happens to requests when the engine dies, and when the server is told to stop."""

import contextlib
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from adapters import AdapterStore, base_fingerprint
from tests.serving import tiny
from tests.serving.live_server import LiveServer, engine_processes, token_ids, wait_for

pytestmark = pytest.mark.slow

PROMPT = tiny.PROMPTS[0]
TOKENS = tiny.MAX_TOKENS
NAMES = ("all-15", "mlp-3", "attn-1")


@pytest.fixture(scope="module")
def server(base: Path, adapter_folders, tmp_path_factory) -> Iterator[LiveServer]:
    folder = tmp_path_factory.mktemp("restart")
    store = AdapterStore(folder / "store")
    for name in NAMES:
        store.publish(adapter_folders[name], name, base_fingerprint=base_fingerprint(base))
    options = ("--max-adapters", "4", "--preload", "attn-1")
    server = LiveServer(base, store.path, folder / "log", *options)
    yield server
    server.stop()


def test_an_engine_that_is_killed_is_started_again_with_the_pinned_adapters(server, expected):
    (engine,) = engine_processes(server)
    os.kill(engine, signal.SIGKILL)
    wait_for(lambda: server.client.get("/health").status_code == 503, 10)
    refused = server.complete("all-15", PROMPT, 1)
    assert refused.status_code in (500, 503)
    assert server.admin("GET", "/status")["engine"]["healthy"] is False
    wait_for(lambda: server.client.get("/health").status_code == 200, 240)
    for name in NAMES:
        assert token_ids(server.complete(name, PROMPT, TOKENS)) == expected[name][0]
    assert server.admin("GET", "/status")["engine"] == {"healthy": True, "restarts": 1}
    assert server.admin("GET", "/adapters/attn-1@v1")["pinned"]


def test_sigterm_under_load_loses_no_accepted_request(server, expected):
    """Last in this file: it ends the server."""
    with ThreadPoolExecutor(12) as pool:
        asked = [
            pool.submit(server.complete, name, PROMPT, TOKENS) for name in NAMES for _ in range(4)
        ]
        wait_for(lambda: any(future.done() for future in asked))
        server.process.send_signal(signal.SIGTERM)
        answers = []
        for future in asked:
            # Refused before it was accepted is no loss; anything else must be whole.
            with contextlib.suppress(httpx.ConnectError):
                answers.append(future.result())
    assert answers
    for response in answers:
        name = response.json()["model"].partition("@")[0]
        assert token_ids(response) == expected[name][0]
    assert server.process.wait(timeout=120) == 0
