"""Small apps to guard, keys to ask with, and a real server to reach them by."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import uvicorn
import yaml
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from serving.security.key_text import digest_of
from serving.security.principal import current_principal

INFERENCE_KEY = "pk-" + "i" * 43
ADMIN_KEY = "pk-" + "a" * 43
EXPIRED_KEY = "pk-" + "e" * 43
WRONG_KEY = "pk-" + "w" * 43
OTHER_KEY = "pk-" + "o" * 43
ALL_KEYS = (INFERENCE_KEY, ADMIN_KEY, EXPIRED_KEY, WRONG_KEY, OTHER_KEY)


def record(key: str, id: str, **fields: Any) -> dict[str, Any]:
    """One record of a keys file."""
    return {
        "id": id,
        "sha256": digest_of(key.encode()).hex(),
        "tenant": "acme",
        "role": "inference",
        "adapters": ["acme-*"],
        **fields,
    }


def standard_records() -> list[dict[str, Any]]:
    return [
        record(INFERENCE_KEY, "reader"),
        record(ADMIN_KEY, "operator", role="admin", adapters=["*"]),
        record(
            EXPIRED_KEY,
            "old",
            role="admin",
            expires=(datetime.now(UTC) - timedelta(days=1)).isoformat(),
        ),
    ]


def write_keys(path: Path, records: Any = None, mode: int = 0o600) -> Path:
    """Replace a keys file as an editor does, at once."""
    content = standard_records() if records is None else records
    text = content if isinstance(content, str) else yaml.safe_dump(content)
    new = path.with_name(path.name + ".new")
    new.write_text(text)
    new.chmod(mode)
    new.replace(path)
    return path


def bearer(key: str | None) -> dict[str, str]:
    return {} if key is None else {"Authorization": f"Bearer {key}"}


async def whoami(request: Request) -> JSONResponse:
    principal = current_principal.get()
    assert request.scope["state"]["principal"] == principal
    body = await request.body()
    return JSONResponse(
        {
            "key_id": principal.key_id,
            "tenant": principal.tenant,
            "is_admin": principal.is_admin,
            "adapters": list(principal.adapters),
            "base": principal.may_use_base,
            "num_bytes": len(body),
        }
    )


async def talk(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(current_principal.get().key_id)
    await websocket.close()


def app(*paths: str) -> Starlette:
    """An app that answers on these paths, and everywhere else, by telling who asks."""
    methods = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS"]
    routes = [Route(path, whoami, methods=methods) for path in (*paths, "/{rest:path}")]
    return Starlette(routes=[WebSocketRoute("/{rest:path}", talk), *routes])


@contextlib.contextmanager
def running(app: Any) -> Iterator[str]:
    """Serve an app by uvicorn on a free loopback port; yields `host:port`."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        host, port = sock.getsockname()
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield f"{host}:{port}"
        finally:
            server.should_exit = True
            thread.join()


def raw_request(address: str, request: bytes) -> bytes:
    """Send bytes as they are, and return the whole answer; the request must ask for closing."""
    host, _, port = address.partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(request)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    return answer


class Clock:
    """A clock that goes on when told."""

    def __init__(self, now: float = 1_000_000.0):
        self.now = now

    def __call__(self) -> float:
        return self.now
