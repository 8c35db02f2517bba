import asyncio

import pytest
from prometheus_client import CollectorRegistry

from serving.observability.metrics import ServeMetrics
from serving.observability.tracking import RequestTracking, current_request


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
        asyncio.run(tracking({"type": "http"}, receive, send))
    except BaseException as error:
        return registry, released, error
    return registry, released, None


def count(registry: CollectorRegistry, outcome: str) -> float | None:
    labels = {"adapter": "a", "outcome": outcome}
    return registry.get_sample_value("propulsion_serve_requests_total", labels)


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


def test_a_stream_that_breaks_off_counts_as_aborted_and_releases_its_adapter():
    async def app(send):
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        raise asyncio.CancelledError

    registry, released, error = play(app)
    assert (count(registry, "aborted"), released) == (1, ["a"])
    assert isinstance(error, asyncio.CancelledError)


def test_a_handler_that_raises_counts_as_a_server_error_and_releases_its_adapter():
    async def app(send):
        raise ValueError("boom")

    registry, released, error = play(app)
    assert (count(registry, "server_error"), released) == (1, ["a"])
    assert isinstance(error, ValueError)
