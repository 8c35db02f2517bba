"""All guards together, on a real server."""

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import websockets.sync.client
from websockets.exceptions import InvalidStatus

from serving.security.config import SecurityConfig
from serving.security.stack import secure
from tests.serving.security.apps import (
    ADMIN_KEY,
    ALL_KEYS,
    INFERENCE_KEY,
    app,
    bearer,
    raw_request,
    running,
    write_keys,
)
from tests.serving.security.test_auth import error_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("security")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[str]:
    config = SecurityConfig(
        keys_file=write_keys(folder / "keys"), audit_log=folder / "audit", max_body_bytes=1000
    )
    with running(secure(app(), config)) as address:
        yield address


@pytest.mark.parametrize(
    "target",
    [
        "//admin/v1/status",
        "/admin/../v1/models",
        "/v1/../admin/v1/status",
        "/v1/..%2fadmin/v1/status",
        "/v1/%2e%2e/admin/v1/status",
        "/v1/%2E%2E%2Fadmin",
        "/v1/%252e%252e/admin",
        "/v1/models%2f..%2f..%2fadmin",
        "/console/..%2fadmin/v1/status",
        "/console/../admin/v1/status",
        "/console/%2e%2e/admin",
        "/console//admin",
        "/v1/models%00",
        "/v1/models%0d%0aX-Injected:%201",
        "/v1\\..\\admin",
        "/health/../admin/v1/status",
        "http://x/../admin",
        "/v1/models/",
        "/V1/MODELS",
        "/ADMIN/v1/status",
        "/Console",
        "/admin/v1/status/",
        "/admin/v1/status;x",
        "/admin/v1/status?Authorization=Bearer%20" + ADMIN_KEY,
        "/admin",
    ],
)
@pytest.mark.parametrize("key", [None, INFERENCE_KEY])
def test_no_spelling_of_a_path_reaches_past_the_guards(
    server: str, target: str, key: str | None
) -> None:
    head = f"GET {target} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in bearer(key).items())
    answer = raw_request(server, head.encode() + b"\r\n")
    status = int(answer.split()[1])
    assert status in (400, 401, 403), answer
    assert b"X-Injected" not in answer


def test_the_key_is_asked_for_before_the_body_is_judged(server: str) -> None:
    url = f"http://{server}/v1/completions"
    error_of(httpx.post(url, content=bytes(2000)), 401)
    error_of(httpx.post(url, content=bytes(2000), headers=bearer(INFERENCE_KEY)), 413)
    chunked = iter([bytes(600), bytes(600)])
    error_of(httpx.post(url, content=chunked, headers=bearer(INFERENCE_KEY)), 413)
    assert httpx.post(url, content=bytes(1000), headers=bearer(INFERENCE_KEY)).is_success


@pytest.mark.parametrize(("key", "status"), [(None, 401), ("wrong", 401)])
def test_a_websocket_without_a_key_is_refused(server: str, key: str | None, status: int) -> None:
    with pytest.raises(InvalidStatus) as refusal:
        websockets.sync.client.connect(
            f"ws://{server}/v1/realtime", additional_headers=bearer(key), proxy=None
        )
    assert refusal.value.response.status_code == status


def test_a_websocket_with_a_key_is_served(server: str) -> None:
    with websockets.sync.client.connect(
        f"ws://{server}/v1/realtime", additional_headers=bearer(INFERENCE_KEY), proxy=None
    ) as websocket:
        assert websocket.recv() == "reader"


def test_what_the_requests_above_left_in_the_audit_log_holds_no_key(
    server: str, folder: Path
) -> None:
    httpx.get(f"http://{server}/admin/{ADMIN_KEY}", headers=bearer(ADMIN_KEY))
    deadline = time.monotonic() + 30
    # A line follows its answer.
    while "operator" not in (text := (folder / "audit").read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert '"path": "/admin/pk-\\u2026"' in text
    assert not any(key in text for key in ALL_KEYS)
