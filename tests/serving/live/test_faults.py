"""What clients, stores and operators do at the wrong moment costs only what it must."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.serving import tiny
from tests.serving.live_server import LiveServer, token_ids, traffic, wait_for

pytestmark = pytest.mark.slow

PROMPT = tiny.PROMPTS[0]
TOKENS = tiny.MAX_TOKENS
SECONDS_AWAY = 30


def test_adapters_come_and_go_during_generation(live, expected):
    server = live.server

    def assert_right(name: str) -> None:
        assert token_ids(server.complete(name, PROMPT, TOKENS)) == expected[name][0]

    def ask() -> None:
        for name in ("all-15", "mlp-3"):
            assert_right(name)

    with traffic(ask, threads=2):
        for _ in range(4):
            for name in ("key-3", "up-15", "value-2"):
                server.admin("POST", f"/adapters/{name}/load", {"pin": True})
                assert_right(name)
                server.admin("POST", f"/adapters/{name}/unpin")
                server.admin("POST", f"/adapters/{name}/unload", {"force": True})
            server.admin("POST", "/adapters/all-15/unload", {"force": True})


def test_a_client_that_leaves_lets_go_of_its_adapter(live):
    def active() -> int:
        return live.server.admin("GET", "/adapters/up-15@v1")["active_requests"]

    token_ids(live.server.complete("up-15", PROMPT, TOKENS))
    body = {"model": "up-15", "prompt": PROMPT, "max_tokens": 200, "stream": True, "n": 16}
    options = {"ignore_eos": True}
    with live.server.client.stream("POST", "/v1/completions", json=body | options) as answer:
        lines = answer.iter_lines()
        next(lines)
        assert active() == 1
    wait_for(lambda: active() == 0)
    live.server.admin("POST", "/adapters/up-15@v1/unload")


def test_a_store_that_is_away_stops_only_what_is_not_loaded(live, expected):
    server, place = live.server, live.store.path
    server.admin("POST", "/adapters/all-15/load")
    server.admin("POST", "/adapters/value-2/load")
    server.admin("POST", "/adapters/value-2/unload", {"force": True})
    away = place.with_name("away")
    place.rename(away)
    try:
        back = time.monotonic() + SECONDS_AWAY
        while time.monotonic() < back:
            answer = server.complete("all-15", PROMPT, TOKENS)
            assert token_ids(answer) == expected["all-15"][0]
            refused = server.complete("value-2", PROMPT, 1)
            assert refused.status_code == 503, refused.text
            assert int(refused.headers["Retry-After"]) > 0
            assert str(place) not in refused.text
            assert server.client.get("/health").status_code == 200
            time.sleep(0.5)
    finally:
        away.rename(place)
    wait_for(lambda: server.complete("value-2", PROMPT, 1).status_code == 200, 15)
    answer = server.complete("value-2", PROMPT, TOKENS)
    assert token_ids(answer) == expected["value-2"][0]


def test_a_body_of_64_mib_is_refused_and_not_kept(live):
    server = live.server
    before = resident_mib(server)
    response = server.client.post("/v1/completions", content=b"x" * (64 << 20))
    assert response.status_code == 413
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}

    def chunks() -> Iterator[bytes]:
        for _ in range(64):
            yield b"x" * (1 << 20)

    with contextlib.suppress(httpx.WriteError, httpx.ReadError):
        assert server.client.post("/v1/completions", content=chunks()).status_code == 413
    assert resident_mib(server) < before + 32
    assert server.complete("all-15", PROMPT, 1).status_code == 200


@pytest.mark.parametrize("option", ["top_k", "priority", "stop_token_ids"])
def test_a_number_beyond_64_bits_is_the_clients_error(live, option):
    number = 2**70
    value = [number] if option == "stop_token_ids" else number
    options = {option: value, "temperature": 1}
    response = live.server.complete("all-15", PROMPT, 1, **options)
    assert response.status_code == 400, response.text


def resident_mib(server: LiveServer) -> float:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024
