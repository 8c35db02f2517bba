import asyncio

import pytest

from cluster.serving.bridge import AsForwarded, answer_parts
from cluster.serving.messages import ForwardedRequest
from serving.observability.metrics import ServeMetrics
from serving.observability.record import current_request
from serving.observability.tracking import RequestTracking
from serving.security.principal import Principal, current_principal

TENANT = Principal(key_id="k", tenant="t", role="inference", adapters=("sst2",))


def forwarded(**fields) -> ForwardedRequest:
    defaults = {"method": "POST", "path": "/v1/completions", "query_string": b"", "headers": ()}
    return ForwardedRequest(
        **{**defaults, "client": None, "body": b"{}", "principal": TENANT, **fields}
    )


@pytest.fixture
def tracked():
    from prometheus_client import CollectorRegistry

    metrics = ServeMetrics(2, CollectorRegistry())
    return lambda app: RequestTracking(AsForwarded(app), metrics)


async def collect(app, request=None) -> list:
    return [part async for part in answer_parts(app, request or forwarded(), "r1")]


async def respond(send, *chunks: bytes, status: int = 200) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"a", b"b")]})
    for chunk in chunks:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await asyncio.sleep(0)
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def test_an_answer_comes_whole_and_signed(tracked):
    async def app(scope, receive, send):
        body = (await receive())["body"]
        await respond(send, b"got ", body)

    parts = asyncio.run(collect(tracked(app), forwarded(body=b"x")))
    assert b"".join(part.body for part in parts) == b"got x"
    assert {part.replica for part in parts} == {"r1"}
    assert [part.is_last for part in parts[:-1]] == [False] * (len(parts) - 1)
    assert parts[-1].is_last


def test_the_head_waits_for_the_first_bytes(tracked):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("the engine died")

    async def heads():
        async for part in answer_parts(tracked(app), forwarded(), "r1"):
            seen.append(part.head)

    seen: list = []
    with pytest.raises(RuntimeError):
        asyncio.run(heads())
    assert seen == []


def test_the_gateways_word_counts_for_who_asks_and_since_when(tracked):
    seen = {}

    async def app(scope, receive, send):
        seen["principal"] = current_principal.get()
        seen["started"] = current_request.get().started
        await respond(send)

    asyncio.run(collect(tracked(app), forwarded(waited_seconds=100.0)))
    early = seen["started"]
    asyncio.run(collect(tracked(app), forwarded()))
    assert seen["principal"] == TENANT
    assert seen["started"] - early > 99


def test_what_the_record_holds_at_the_answers_begin_is_told(tracked):
    async def app(scope, receive, send):
        record = current_request.get()
        record.label, record.reference, record.was_resident = "sst2", "sst2@v3", True
        record.prompt_tokens = 5
        await send({"type": "http.response.start", "status": 200, "headers": []})
        record.generated_tokens, record.engine_failed = 2, True
        await send({"type": "http.response.body", "body": b"x"})

    parts = asyncio.run(collect(tracked(app)))
    head = next(part.head for part in parts if part.head)
    assert (head.label, head.reference, head.was_resident) == ("sst2", "sst2@v3", True)
    assert (parts[-1].prompt_tokens, parts[-1].generated_tokens) == (5, 2)
    assert parts[-1].engine_failed


def test_an_answer_that_nobody_reads_any_more_is_ended(tracked):
    ended = asyncio.Event()

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    async def leave():
        parts = answer_parts(tracked(app), forwarded(), "r1")
        async for part in parts:
            if part.head:
                break
        await parts.aclose()
        return ended.is_set()

    assert asyncio.run(leave())


def test_long_silence_is_broken_by_reports_of_tokens(tracked, monkeypatch):
    monkeypatch.setattr("cluster.serving.bridge._REPORT_SECONDS", 0.01)

    async def app(scope, receive, send):
        current_request.get().generated_tokens = 7
        await asyncio.sleep(0.1)
        await respond(send)

    parts = asyncio.run(collect(tracked(app)))
    reports = [part for part in parts if part.head is None and part.generated_tokens == 7]
    assert reports
