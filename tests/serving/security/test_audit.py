"""What the audit log records, and what it leaves out."""

import asyncio
import json
import logging
import os
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from propulsion.errors import ConfigError
from serving.security.audit import Audit
from serving.security.audit_log import LOGGER, AuditLog
from serving.security.config import SecurityConfig
from serving.security.stack import secure
from tests.serving.security import apps
from tests.serving.security.apps import ADMIN_KEY, INFERENCE_KEY, WRONG_KEY, bearer


def lines(folder: Path) -> list[dict]:
    text = (folder / "audit.jsonl").read_text()
    assert text == "" or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def test_an_admin_call_is_recorded_with_who_what_and_how_it_ended(
    client: TestClient, tmp_path: Path
) -> None:
    client.put("/admin/v1/adapters/a/aliases/prod", headers=bearer(ADMIN_KEY))
    (line,) = lines(tmp_path)
    moment = datetime.fromisoformat(line.pop("time"))
    assert moment.tzinfo == UTC
    assert line.pop("duration_seconds") >= 0
    assert line == {
        "request_id": None,
        "key_id": "operator",
        "tenant": "acme",
        "method": "PUT",
        "path": "/admin/v1/adapters/a/aliases/prod",
        "status": 200,
        "client": "testclient",
    }


@pytest.mark.parametrize(
    ("method", "path", "key", "status", "who"),
    [
        ("POST", "/admin/v1/adapters/a/load", None, 401, None),
        ("POST", "/admin/v1/adapters/a/load", WRONG_KEY, 401, None),
        ("POST", "/admin/v1/adapters/a/load", INFERENCE_KEY, 403, "reader"),
        ("POST", "/collective_rpc", INFERENCE_KEY, 403, "reader"),
        ("POST", "/v1/completions", WRONG_KEY, 401, None),
        ("GET", "/v1//models", ADMIN_KEY, 400, None),
    ],
)
def test_every_refusal_is_recorded(
    client: TestClient, tmp_path: Path, method: str, path: str, key: str, status: int, who: str
) -> None:
    client.request(method, path, headers=bearer(key))
    (line,) = lines(tmp_path)
    assert (line["status"], line["key_id"], line["path"]) == (status, who, path)


def test_answered_inference_calls_and_open_routes_are_not_recorded(
    client: TestClient, tmp_path: Path
) -> None:
    client.post("/v1/completions", headers=bearer(INFERENCE_KEY))
    client.get("/health")
    assert lines(tmp_path) == []


def test_refused_websockets_are_recorded(client: TestClient, tmp_path: Path) -> None:
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/v1/realtime"):
        pass
    (line,) = lines(tmp_path)
    assert (line["method"], line["status"]) == ("WEBSOCKET", 401)


def test_an_error_of_the_app_is_recorded_and_passed_on(tmp_path: Path, keys_file: Path) -> None:
    async def broken(scope, receive, send) -> None:
        raise RuntimeError("no engine")

    config = SecurityConfig(keys_file=keys_file, audit_log=tmp_path / "audit.jsonl")
    with pytest.raises(RuntimeError):
        TestClient(secure(broken, config)).get("/admin/x", headers=bearer(ADMIN_KEY))
    assert lines(tmp_path)[0]["status"] == 500


def test_the_request_id_is_asked_for_where_the_request_runs(
    tmp_path: Path, keys_file: Path
) -> None:
    config = SecurityConfig(keys_file=keys_file, audit_log=tmp_path / "audit.jsonl")
    TestClient(secure(apps.app(), config, request_id=lambda: "req-7")).get("/admin/x")
    assert lines(tmp_path)[0]["request_id"] == "req-7"


def test_of_a_body_only_three_fields_are_kept_and_only_as_what_they_are(
    client: TestClient, tmp_path: Path
) -> None:
    bodies = [
        {"version": "v3", "weights": {"v3": 0.9, "v4": 1}, "pin": True, "secret": "hunter2"},
        {"version": {"x": "hunter2"}, "weights": {"v3": "hunter2"}, "pin": "hunter2"},
        {"version": "x" * 5000, "weights": {str(i): 1 for i in range(999)}},
        ["hunter2"],
    ]
    for body in bodies:
        client.put("/admin/v1/x", headers=bearer(ADMIN_KEY), json=body)
    for content in (b"{", b'{"weights": {"a": NaN, "b": Infinity, "c": 1e999}}', b"[" * 100_000):
        client.put("/admin/v1/x", headers=bearer(ADMIN_KEY), content=content)
    found = [
        {k: line[k] for k in ("version", "weights", "pin") if k in line} for line in lines(tmp_path)
    ]
    assert found[0] == {"version": "v3", "weights": {"v3": 0.9, "v4": 1}, "pin": True}
    assert found[1] == {"weights": {}}
    assert found[2] == {"version": "x" * 128}
    assert found[3:] == [{}, {}, {"weights": {}}, {}]
    assert "hunter2" not in (tmp_path / "audit.jsonl").read_text()


def test_bodies_of_inference_calls_are_not_kept_even_when_refused(
    client: TestClient, tmp_path: Path
) -> None:
    client.post("/v1/completions", json={"version": "a prompt"})
    client.post("/admin/v1/x", json={"version": "unread"}, headers=bearer(INFERENCE_KEY))
    assert not any("version" in line for line in lines(tmp_path))


def test_bodies_of_inference_calls_are_not_kept_when_the_app_refuses_them(
    tmp_path: Path, keys_file: Path
) -> None:
    async def reads_and_refuses(scope, receive, send) -> None:
        await receive()
        await PlainTextResponse("no", 403)(scope, receive, send)

    config = SecurityConfig(keys_file=keys_file, audit_log=tmp_path / "audit.jsonl")
    client = TestClient(secure(reads_and_refuses, config))
    client.post("/v1/completions", json={"version": "x"}, headers=bearer(INFERENCE_KEY))
    (line,) = lines(tmp_path)
    assert line["status"] == 403
    assert "version" not in line


def test_a_large_body_is_passed_on_whole_and_not_kept(client: TestClient, tmp_path: Path) -> None:
    body = json.dumps({"version": "v1", "padding": "x" * 200_000}).encode()
    answer = client.post("/admin/v1/x", headers=bearer(ADMIN_KEY), content=body)
    assert answer.json()["num_bytes"] == len(body)
    assert "version" not in lines(tmp_path)[0]


def test_a_flood_of_strangers_is_thinned_out_and_admins_are_always_recorded(
    client: TestClient, tmp_path: Path, clock: apps.Clock
) -> None:
    for _ in range(250):
        client.get("/admin/x")
    assert len(lines(tmp_path)) == 200
    client.get("/admin/x", headers=bearer(ADMIN_KEY))
    last = lines(tmp_path)[-1]
    assert (last["key_id"], last["left_out"]) == ("operator", 50)
    clock.now += 1
    client.get("/admin/x")
    assert lines(tmp_path)[-1]["key_id"] is None
    assert "left_out" not in lines(tmp_path)[-1]


def test_without_a_file_lines_go_to_the_logger(
    keys_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    client = TestClient(secure(apps.app(), SecurityConfig(keys_file=keys_file)))
    with caplog.at_level(logging.INFO, logger=LOGGER):
        client.get("/admin/v1/status", headers=bearer(ADMIN_KEY))
    (entry,) = [entry for entry in caplog.records if entry.name == LOGGER]
    assert json.loads(entry.getMessage())["key_id"] == "operator"


def test_the_file_is_private_and_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    for number in range(2):
        log = AuditLog(path)
        log.write({"n": number})
        log.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [line["n"] for line in lines(tmp_path)] == [0, 1]


@pytest.mark.parametrize("rotate", ["moved", "removed", "truncated"])
def test_a_rotated_file_is_followed(tmp_path: Path, rotate: str) -> None:
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path)
    log.write({"n": 0})
    if rotate == "moved":
        path.rename(tmp_path / "audit.jsonl.1")
    elif rotate == "removed":
        path.unlink()
    else:
        os.truncate(path, 0)
    log.write({"n": 1})
    assert [line["n"] for line in lines(tmp_path)] == [1]


def test_a_file_that_cannot_be_opened_ends_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--audit-log .*nowhere"):
        AuditLog(tmp_path / "nowhere" / "audit.jsonl")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(ConfigError, match="--audit-log"):
        AuditLog(tmp_path / "link")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full to write to")
def test_a_full_disk_loses_lines_counts_them_is_logged_once_and_kills_nothing(
    keys_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    secured = secure(apps.app(), SecurityConfig(keys_file=keys_file, audit_log=Path("/dev/full")))
    client = TestClient(secured)
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            answer = client.get("/admin/v1/status", headers=bearer(ADMIN_KEY))
            assert answer.status_code == 200
    assert secured.audit_log.failures == 3
    assert [entry.levelname for entry in caplog.records] == ["ERROR"]
    assert "No space left" in caplog.text


def test_a_line_cut_short_by_a_full_disk_does_not_spoil_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = AuditLog(tmp_path / "audit.jsonl")
    whole = os.write
    with monkeypatch.context() as patch:
        # A file system that fills up within a line cannot be had here.
        patch.setattr(os, "write", lambda descriptor, data: whole(descriptor, data[:5]))
        log.write({"lost": 1})
    log.write({"n": 1})
    assert log.failures == 1
    cut, line = (tmp_path / "audit.jsonl").read_text().splitlines()
    assert len(cut) == 5
    assert json.loads(line) == {"n": 1}


@pytest.mark.parametrize(
    "text", ["a\r\nb", "\x1b[2J", "\u2028", '"}\n{"key_id": "operator', "\ud800"]
)
def test_nothing_a_client_sends_begins_a_line_or_steers_a_terminal(
    tmp_path: Path, text: str
) -> None:
    async def refuse(scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 401, "headers": []})

    async def ignore(message) -> None:
        pass

    scope = {
        "type": "http",
        "method": text,
        "path": f"/admin/{text}",
        "client": (text, 1),
        "headers": [(b"user-agent", text.encode(errors="replace"))],
    }
    audit = Audit(refuse, AuditLog(tmp_path / "audit.jsonl"))
    asyncio.run(audit(scope, None, ignore))
    data = (tmp_path / "audit.jsonl").read_bytes()
    assert data.count(b"\n") == 1
    assert all(0x20 <= byte < 0x7F for byte in data[:-1])
    assert json.loads(data)["status"] == 401
