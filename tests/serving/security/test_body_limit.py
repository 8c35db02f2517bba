"""Bodies beyond the limit, over real HTTP."""

import asyncio
import tracemalloc
from collections.abc import Iterator

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from serving.security.body_limit import BodyLimit
from tests.serving.security.apps import app, raw_request, running
from tests.serving.security.test_auth import error_of

LIMIT = 1 << 20
LARGE = 64 << 20
CHUNK = bytes(1 << 16)


async def size(request: Request) -> JSONResponse:
    return JSONResponse({"num_bytes": len(await request.body())})


async def echo(request: Request) -> StreamingResponse:
    return StreamingResponse(request.stream())


async def no_matter_what(request: Request) -> JSONResponse:
    try:
        await request.body()
    except Exception:
        return JSONResponse({"error": "unreadable"}, status_code=400)
    return JSONResponse({})


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    routes = [
        Route("/size", size, methods=["POST"]),
        Route("/echo", echo, methods=["POST"]),
        Route("/caught", no_matter_what, methods=["POST"]),
    ]
    with running(BodyLimit(Starlette(routes=routes), LIMIT)) as address:
        yield f"http://{address}"


def chunks(total: int) -> Iterator[bytes]:
    for _ in range(total // len(CHUNK)):
        yield CHUNK
    yield bytes(total % len(CHUNK))


@pytest.mark.parametrize("path", ["/size", "/caught"])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_the_limit_passes_and_one_byte_more_is_refused(
    server: str, path: str, chunked: bool
) -> None:
    def body(total: int):
        return chunks(total) if chunked else bytes(total)

    assert httpx.post(server + path, content=body(LIMIT)).status_code == 200
    error = error_of(httpx.post(server + path, content=body(LIMIT + 1)), 413)
    assert str(LIMIT) in error["message"]


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_64_mib_is_refused_and_never_held(server: str, chunked: bool) -> None:
    headers = {} if chunked else {"Content-Length": str(LARGE)}
    tracemalloc.start()
    try:
        answer = httpx.post(server + "/size", content=chunks(LARGE), headers=headers, timeout=60)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    error_of(answer, 413)
    assert peak < 8 * LIMIT


@pytest.mark.parametrize("path", ["/size", "/caught"])
def test_the_connection_serves_on_after_a_refusal(server: str, path: str) -> None:
    with httpx.Client() as client:
        for content in (bytes(LIMIT + 1), b"ok", chunks(LIMIT + 1), b"ok"):
            answer = client.post(server + path, content=content)
            assert answer.status_code == (200 if content == b"ok" else 413)


@pytest.mark.parametrize("app", [size, no_matter_what])
def test_a_refusal_is_one_answer_whatever_the_app_makes_of_it(app) -> None:
    parts = [{"type": "http.request", "body": bytes(LIMIT), "more_body": True}] * 3
    sent = []

    async def receive() -> dict:
        return parts.pop()

    async def send(message: dict) -> None:
        sent.append(message)

    async def call() -> None:
        routes = [Route("/", app, methods=["POST"])]
        scope = {"type": "http", "method": "POST", "path": "/", "headers": [], "query_string": b""}
        await BodyLimit(Starlette(routes=routes), LIMIT)(scope, receive, send)

    asyncio.run(call())
    assert [message.get("status") for message in sent] == [413, None]
    assert len(parts) == 1


def test_an_answer_that_has_begun_ends_when_the_body_grows_too_large(server: str) -> None:
    received = b""
    try:
        with httpx.stream("POST", server + "/echo", content=chunks(4 * LIMIT)) as answer:
            for part in answer.iter_raw():
                received += part
    except httpx.TransportError:
        pass
    assert len(received) <= LIMIT


@pytest.mark.parametrize("length", [b"9" * 5000, b"0" * 30 + b"99999999", b"18446744073709551617"])
def test_a_length_of_any_number_of_digits_is_judged(length: bytes) -> None:
    messages = []

    async def call() -> None:
        async def send(message) -> None:
            messages.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/",
            "headers": [(b"content-length", length)],
        }
        await BodyLimit(app(), LIMIT)(scope, None, send)

    asyncio.run(call())
    assert messages[0]["status"] == 413


def test_a_length_that_lies_gets_no_more_than_it_said(server: str) -> None:
    address = server.removeprefix("http://")
    head = b"POST /size HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 4\r\n\r\n"
    assert b'{"num_bytes":4}' in raw_request(address, head + b"abcdefgh")
