"""A server without keys: programs of this machine, not pages of other sites."""

from pathlib import Path

import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from serving.security.config import SecurityConfig
from serving.security.stack import secure
from tests.serving.security import apps
from tests.serving.security.test_auth import error_of


@pytest.fixture
def client() -> TestClient:
    return TestClient(secure(apps.app(), SecurityConfig()), base_url="http://127.0.0.1:8000")


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "[::1]:8000", "127.0.0.2"])
def test_a_local_caller_may_do_everything(client: TestClient, host: str) -> None:
    for path in ("/v1/models", "/admin/v1/status"):
        caller = client.get(path, headers={"Host": host}).json()
        assert (caller["key_id"], caller["is_admin"], caller["base"]) == ("local", True, True)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "10.0.0.1", "", "[::1"])
@pytest.mark.parametrize("path", ["/v1/models", "/admin/v1/status"])
def test_a_foreign_name_for_this_machine_is_refused(
    client: TestClient, host: str, path: str
) -> None:
    error_of(client.get(path, headers={"Host": host}), 403)


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1.evil.example"]
)
def test_pages_of_other_sites_are_refused(client: TestClient, origin: str) -> None:
    error_of(client.post("/admin/v1/x", headers={"Origin": origin}), 403)
    error_of(client.post("/v1/completions", headers={"Origin": origin}), 403)
    with (
        pytest.raises(WebSocketDisconnect),
        client.websocket_connect("ws://127.0.0.1/v1/realtime", headers={"Origin": origin}),
    ):
        pass


def test_the_servers_own_console_is_answered(client: TestClient) -> None:
    headers = {"Origin": "http://127.0.0.1:8000"}
    assert client.post("/admin/v1/x", headers=headers).status_code == 200


def test_probes_come_by_any_name(client: TestClient) -> None:
    assert client.get("/health", headers={"Host": "node-7"}).status_code == 200


def test_odd_paths_are_refused_here_too(client: TestClient) -> None:
    error_of(client.get("/admin//x"), 400)


def test_bodies_are_limited_and_admin_calls_recorded_here_too(tmp_path: Path) -> None:
    config = SecurityConfig(max_body_bytes=10, audit_log=tmp_path / "audit")
    client = TestClient(secure(apps.app(), config), base_url="http://localhost")
    error_of(client.post("/admin/v1/x", content=b"x" * 11), 413)
    assert '"key_id": "local"' in (tmp_path / "audit").read_text()
