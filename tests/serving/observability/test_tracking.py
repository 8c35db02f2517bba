import asyncio
import json
import logging
import threading

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient

from serving.observability.metrics import ServeMetrics
from serving.observability.tracking import RequestTracking, current_request
from serving.security.principal import Principal
from tests.serving.observability.live_app import serving


def scope(**options) -> dict:
    return {"type": "http", "method": "POST", "path": "/v1/completions", "headers": [], **options}


def play(app) -> tuple[CollectorRegistry, list[str], BaseException | None]:
    """Answer one request with `app`; also returns what was released and what was raised."""
    registry, released = CollectorRegistry(), []

    async def labelled(scope, receive, send):
        record = current_request.get()
        record.label = "a"
        record.on_end.append(lambda: released.append("a"))
        await app(send)

    async def send(message):
        pass

    async def receive():
        return {"type": "http.disconnect"}

    tracking = RequestTracking(labelled, ServeMetrics(8, registry))
    try:
        asyncio.run(tracking(scope(), receive, send))
    except BaseException as error:
        return registry, released, error
    return registry, released, None


def count(registry: CollectorRegistry, outcome: str) -> float | None:
    labels = {"adapter": "a", "outcome": outcome}
    return registry.get_sample_value("propulsion_serve_requests_total", labels)


def errors(registry: CollectorRegistry, adapter: str, code: int) -> float | None:
    labels = {"adapter": adapter, "code": str(code)}
    return registry.get_sample_value("propulsion_serve_errors_total", labels)


def tracked(*routes: Route | WebSocketRoute) -> tuple[RequestTracking, CollectorRegistry]:
    registry = CollectorRegistry()
    return RequestTracking(Starlette(routes=list(routes)), ServeMetrics(8, registry)), registry


@pytest.mark.parametrize(
    ("status", "outcome"), [(200, "ok"), (404, "client_error"), (500, "server_error")]
)
def test_an_answered_request_counts_by_its_status(status, outcome):
    async def app(send):
        await send({"type": "http.response.start", "status": status})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    registry, released, error = play(app)
    assert (count(registry, outcome), released, error) == (1, ["a"], None)
    assert errors(registry, "a", status) == (None if status == 200 else 1)


def test_a_stream_that_breaks_off_counts_as_aborted_and_releases_its_adapter():
    async def app(send):
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        raise asyncio.CancelledError

    registry, released, error = play(app)
    assert (count(registry, "aborted"), released) == (1, ["a"])
    assert isinstance(error, asyncio.CancelledError)


def test_a_request_cancelled_before_its_answer_counts_as_aborted():
    async def app(send):
        raise asyncio.CancelledError

    registry, released, _ = play(app)
    assert (count(registry, "aborted"), released) == (1, ["a"])


def test_a_handler_that_raises_counts_as_a_server_error_and_releases_its_adapter():
    async def app(send):
        raise ValueError("boom")

    registry, released, error = play(app)
    assert (count(registry, "server_error"), released) == (1, ["a"])
    assert errors(registry, "a", 500) == 1
    assert isinstance(error, ValueError)


def test_an_engine_that_fails_after_the_stream_began_counts_as_a_server_error():
    async def app(send):
        current_request.get().engine_failed = True
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"data: error"})

    registry, _, _ = play(app)
    assert (count(registry, "server_error"), errors(registry, "a", 500)) == (1, 1)


def test_one_callback_that_raises_does_not_stop_the_others_and_each_runs_once():
    ran = []

    def fail():
        ran.append("fail")
        raise ValueError("boom")

    async def app(send):
        current_request.get().on_end += [fail, lambda: ran.append("next")]
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b""})

    registry, released, error = play(app)
    assert (ran, released, error) == (["fail", "next"], ["a"], None)
    assert count(registry, "ok") == 1


async def echo(request):
    record = current_request.get()
    record.reference = request.query_params.get("reference")
    return JSONResponse({"header": request.headers["x-request-id"], "record": record.request_id})


@pytest.mark.parametrize("given_id", ["abc-1.2_X", "a", "a" * 128])
def test_a_clients_request_id_is_kept_and_reaches_the_app_and_the_response(given_id):
    client = TestClient(tracked(Route("/", echo))[0])
    response = client.get("/", headers={"X-Request-Id": given_id})
    assert response.headers["x-request-id"] == given_id
    assert response.json() == {"header": given_id, "record": given_id}


@pytest.mark.parametrize("given_id", ["", "a" * 129, "a b", "a\tb", "../x", "é", '"', "a,b"])
def test_a_request_id_that_is_not_plain_is_replaced_everywhere(given_id):
    client = TestClient(tracked(Route("/", echo))[0])
    response = client.get("/", headers={"X-Request-Id": given_id.encode()})
    made = response.headers["x-request-id"]
    assert made != given_id
    assert len(made) == 32
    assert response.json() == {"header": made, "record": made}


def test_requests_without_an_id_get_different_ones():
    client = TestClient(tracked(Route("/", echo))[0])
    assert len({client.get("/").headers["x-request-id"] for _ in range(20)}) == 20


def test_the_version_that_answers_is_in_the_response():
    client = TestClient(tracked(Route("/", echo))[0])
    response = client.get("/", params={"reference": "sst2@v3"})
    assert response.headers["x-adapter-version"] == "sst2@v3"
    assert "x-adapter-version" not in client.get("/").headers


@pytest.mark.parametrize(("status", "sent"), [(503, "7"), (429, "7"), (404, None), (200, None)])
def test_when_to_ask_again_is_in_a_refusal_that_passes(status, sent):
    async def refuse(request):
        current_request.get().retry_after = 7
        return JSONResponse({}, status_code=status)

    response = TestClient(tracked(Route("/", refuse))[0]).get("/")
    assert response.headers.get("retry-after") == sent


@given(st.text())
def test_no_reference_breaks_the_response_or_adds_a_header(reference):
    sent = []

    async def app(scope, receive, send):
        current_request.get().reference = reference
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def send(message):
        sent.append(message)

    tracking = RequestTracking(app, ServeMetrics(8, CollectorRegistry()))
    asyncio.run(tracking(scope(), None, send))
    names = [name for name, _ in sent[0]["headers"]]
    assert names == [b"x-request-id", b"x-adapter-version"]
    assert all(0x21 <= byte < 0x7F for byte in sent[0]["headers"][1][1])


def test_a_client_that_leaves_a_real_server_counts_as_aborted_and_releases_once():
    released = threading.Event()
    releases = []

    async def stream(request):
        record = current_request.get()
        record.label = "a"
        record.on_end.append(lambda: (releases.append(1), released.set()))

        async def chunks():
            while True:
                yield b"data: x\n\n"
                await asyncio.sleep(0.01)

        return StreamingResponse(chunks())

    app, registry = tracked(Route("/", stream))
    with serving(app) as url:
        with httpx.stream("GET", url) as response:
            next(response.iter_bytes())
        assert released.wait(10)
    assert releases == [1]
    assert count(registry, "aborted") == 1


def test_a_client_that_leaves_before_the_answer_counts_as_aborted():
    # As vLLM does: it stops when the client is gone, and answers nobody.
    released = threading.Event()

    async def wait(request):
        record = current_request.get()
        record.label = "a"
        record.on_end.append(released.set)
        while (await request.receive())["type"] != "http.disconnect":
            pass
        return JSONResponse(None)

    app, registry = tracked(Route("/", wait))
    with serving(app) as url:
        with pytest.raises(httpx.ReadTimeout):
            httpx.get(url, timeout=0.3)
        assert released.wait(10)
    assert count(registry, "aborted") == 1


def test_a_websocket_is_followed_to_its_end():
    ended = threading.Event()

    async def talk(websocket):
        record = current_request.get()
        record.label = "a"
        record.on_end.append(ended.set)
        await websocket.accept()
        await websocket.send_text(record.request_id)
        await websocket.receive_text()
        assert not ended.is_set()
        await websocket.close()

    app, registry = tracked(WebSocketRoute("/", talk))
    with TestClient(app).websocket_connect("/", headers={"X-Request-Id": "me"}) as socket:
        assert socket.receive_text() == "me"
        socket.send_text("bye")
    assert ended.wait(10)
    assert count(registry, "ok") == 1


def test_what_reached_no_adapter_counts_as_an_error_of_none_and_probes_do_not():
    app, registry = tracked(Route("/", echo))
    client = TestClient(app)
    for path in ("/nothing", "/health", "/metrics"):
        assert client.get(path).status_code == 404
    assert errors(registry, "unknown", 404) == 1


def test_the_access_log_names_adapter_tenant_and_tokens_and_no_query(caplog):
    async def answer(scope, receive, send):
        scope["state"]["principal"] = Principal("k1", "acme", "inference")
        record = current_request.get()
        record.label, record.reference = "sst2", "sst2@v3"
        record.prompt_tokens, record.generated_tokens = 12, 5
        await JSONResponse({})(scope, receive, send)

    app = RequestTracking(answer, ServeMetrics(8, CollectorRegistry()))
    with caplog.at_level(logging.INFO, logger="serving.access"):
        TestClient(app).get("/v1/x%0aERROR forged?api_key=secret")
    (line,) = [r for r in caplog.records if r.name == "serving.access"]
    fields = line.propulsion_fields
    assert (fields["status"], fields["outcome"], fields["method"]) == (200, "ok", "GET")
    assert (fields["prompt_tokens"], fields["generated_tokens"]) == (12, 5)
    text = line.getMessage() + json.dumps(fields)
    assert "sst2@v3" in text
    assert "secret" not in text
    assert "\n" not in line.getMessage()


def test_the_record_is_closed_to_tasks_that_outlive_the_request():
    late = []

    async def answer(request):
        loop = asyncio.get_running_loop()
        loop.call_later(0.2, lambda: late.append(current_request.get().ended))
        return JSONResponse({})

    app, _ = tracked(Route("/", answer))
    with TestClient(app) as client:
        client.get("/")
        client.portal.call(asyncio.sleep, 0.4)
    assert late == [True]
