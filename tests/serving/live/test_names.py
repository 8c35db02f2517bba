"""What clients write as a name is never a path, and never an address."""

import os
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest

pytestmark = pytest.mark.slow

SECRET = "what no client may read"


@pytest.fixture(scope="module")
def listener() -> Iterator[socket.socket]:
    """Where a server that followed an address would call."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        listener.setblocking(False)
        yield listener


@pytest.fixture(scope="module")
def outside(live) -> Path:
    """A file beside the store, one step out of it."""
    file = live.store.path.parent / "outside" / "adapter_config.json"
    file.parent.mkdir()
    file.write_text(SECRET)
    # Older than its content, so that the first reading moves it.
    os.utime(file, ns=(0, file.stat().st_mtime_ns))
    return file


def names(listener: socket.socket, outside: Path) -> list[str]:
    port = listener.getsockname()[1]
    return [
        *("../outside", "../outside/adapter_config.json", "all-15/../../outside", "./all-15"),
        *("all-15/v1", "all-15/v1/adapter_config.json", str(outside), f"file://{outside}"),
        *("%2e%2e%2foutside", "..%2foutside", "%252e%252e%252foutside", "..\\outside"),
        *("..", ".", "/", "\\", "~", "~root", "$HOME", "`id`", "all-15;id", "*", "all-1?"),
        *(f"http://127.0.0.1:{port}/x", f"https://127.0.0.1:{port}/x", f"//127.0.0.1:{port}/x"),
        *(f"s3://127.0.0.1:{port}/x", f"ftp://127.0.0.1:{port}/x", f"hf://127.0.0.1:{port}"),
        *("all-15\0", "all-15\0.json", "\0", "all-15\n", "all-15\r\nX-Evil: 1", "all-15 ", " "),
        *("all-15@../v1", "all-15@v1/..", "all-15@", "@v1", "all-15@v1@v1", "all-15@v01"),
        *("all-15@v1\0", "all-15@-1", "all-15@v99999999999999999999", "ａll-15"),
        *("propulsion-blend:[]", 'propulsion-blend:[["/etc",1]]', "all-15+../outside"),
        *("\u202eall-15", "all-15\u200b", "日本語", "🙂", "a" * 300, "a" * 100_000),
        *("+", "all-15+", "+all-15", "+".join(["nobody"] * 1000)),
    ]


def assert_harmless(text: str, outside: Path) -> None:
    """Whatever it repeats of the question."""
    assert SECRET not in text
    assert "root:" not in text
    assert str(outside.parents[1] / "store") not in text


@pytest.mark.parametrize("path", ["/v1/completions", "/tokenize", "/invocations"])
def test_no_name_in_a_body_reaches_a_file_or_an_address(live, listener, outside, path):
    for name in names(listener, outside):
        body = {"model": name, "prompt": "x", "max_tokens": 1}
        response = live.clients["admin"].post(path, json=body)
        assert response.status_code in (400, 404), (name[:80], response.text[:300])
        assert "X-Evil" not in response.headers
        assert_harmless(response.text, outside)
        assert len(response.text) < 2000, "the answer repeats a name of any length"
    assert_nobody_called(listener)
    assert_no_file_was_opened(outside)


def test_no_name_in_a_path_reaches_a_file_or_an_address(live, listener, outside):
    routes = [
        *(("GET", "/admin/v1/adapters/{}"), ("POST", "/admin/v1/adapters/{}/load")),
        *(("GET", "/admin/v1/adapters/{}/aliases"), ("GET", "/console/{}"), ("GET", "/{}")),
        ("PUT", "/admin/v1/adapters/all-15/aliases/{}"),
    ]
    encodings = [
        lambda name: name,
        lambda name: "".join(f"%{byte:02x}" for byte in name.encode()),
    ]
    for name in names(listener, outside):
        for encode in encodings:
            written = encode(name[:2000])
            if any(ord(c) <= 32 or ord(c) > 126 or c == "?" for c in written):
                # Such a path is no path as it stands.
                continue
            for method, route in routes:
                status, text = raw(live, method, route.format(written))
                assert 300 <= status < 500, (method, route, name, status)
                assert_harmless(text, outside)
    assert_nobody_called(listener)
    assert_no_file_was_opened(outside)
    assert live.store.aliases("all-15") == {"latest": "v1"}


def raw(live, method: str, path: str) -> tuple[int, str]:
    """Status and all else of an answer to exactly this path, which clients would tidy."""
    url = urlsplit(live.server.url)
    body = b'{"version": "v1"}' if method == "PUT" else b""
    head = [
        *(f"{method} {path} HTTP/1.1", f"Host: {url.netloc}", "Connection: close"),
        *("Content-Type: application/json", f"Content-Length: {len(body)}"),
        f"Authorization: Bearer {live.keys['admin']}",
    ]
    answer = b""
    with socket.create_connection((url.hostname, url.port), timeout=30) as connection:
        connection.sendall("\r\n".join([*head, "", ""]).encode() + body)
        while part := connection.recv(1 << 16):
            answer += part
    return int(answer.split(b" ", 2)[1]), answer.decode(errors="replace")


def assert_nobody_called(listener: socket.socket) -> None:
    with pytest.raises(BlockingIOError):
        listener.accept()


def assert_no_file_was_opened(outside: Path) -> None:
    """Tells only where the file system records when files are read, as most do."""
    assert outside.stat().st_atime_ns == 0
