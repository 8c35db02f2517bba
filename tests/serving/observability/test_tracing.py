import asyncio

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from propulsion.errors import AdapterNotFoundError, ConfigError
from serving.observability.logs import JsonFormatter
from serving.observability.metrics import ServeMetrics
from serving.observability.record import RequestRecord
from serving.observability.tracing import (
    PROTOCOL_VARIABLE,
    current_trace_id,
    otlp_exporter,
    span,
    start_exporting,
    start_tracing,
    traces_url,
)
from serving.observability.tracking import RequestTracking, current_request
from serving.security.principal import Principal
from tests.serving.observability.collector import collecting
from tests.serving.observability.test_logs import entry

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


async def complete(request):
    record = current_request.get()
    request.scope["state"]["principal"] = Principal("k1", "acme", "inference")
    if request.query_params.get("missing"):
        with span("propulsion.resolve", adapter="none"):
            raise AdapterNotFoundError("none")
    with span("propulsion.resolve", adapter="sst2@prod"):
        record.label, record.reference = "sst2", "sst2@v3"

    async def load():
        with span("propulsion.load", adapter="sst2@v3", pinned=None):
            await asyncio.sleep(0)

    # As the loader does: in a task of its own, which others may wait for too.
    await asyncio.create_task(load())
    record.prompt_tokens, record.generated_tokens = 12, 5
    headers = {k: v for k, v in request.headers.items() if k.startswith("trace")}
    return JSONResponse({"headers": headers, "trace": current_trace_id()})


@pytest.fixture
def client():
    routes = [
        Route("/v1/chat/completions", complete, methods=["POST"]),
        Route("/health", complete),
    ]
    app = RequestTracking(Starlette(routes=routes), ServeMetrics(8, CollectorRegistry()))
    return TestClient(app, raise_server_exceptions=False)


@pytest.fixture
def exporter():
    exporter = InMemorySpanExporter()
    stop = start_tracing(exporter, batch=False)
    yield exporter
    stop()


def by_name(exporter: InMemorySpanExporter) -> dict:
    return {finished.name: finished for finished in exporter.get_finished_spans()}


def test_a_request_is_a_span_with_its_adapter_tenant_and_tokens(client, exporter):
    response = client.post("/v1/chat/completions?key=secret", headers={"X-Request-Id": "me"})
    request = by_name(exporter)["propulsion.request"]
    assert request.kind is SpanKind.SERVER
    assert dict(request.attributes) == {
        "http.request.method": "POST",
        "url.path": "/v1/chat/completions",
        "http.response.status_code": 200,
        "gen_ai.operation.name": "chat",
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.output_tokens": 5,
        "propulsion.adapter": "sst2@v3",
        "propulsion.tenant": "acme",
        "propulsion.request_id": "me",
        "propulsion.outcome": "ok",
    }
    assert request.resource.attributes["service.name"] == "propulsion-serve"
    assert response.json()["trace"] == f"{request.context.trace_id:032x}"


def test_what_is_done_for_a_request_is_a_child_of_its_span(client, exporter):
    client.post("/v1/chat/completions")
    spans = by_name(exporter)
    assert set(spans) == {"propulsion.request", "propulsion.resolve", "propulsion.load"}
    request = spans["propulsion.request"].context
    for name, adapter in (("propulsion.resolve", "sst2@prod"), ("propulsion.load", "sst2@v3")):
        assert spans[name].parent.span_id == request.span_id
        assert dict(spans[name].attributes) == {"propulsion.adapter": adapter}


def test_a_clients_trace_is_continued_and_passed_on_to_vllm(client, exporter):
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=x"}
    passed_on = client.post("/v1/chat/completions", headers=headers).json()["headers"]
    request = by_name(exporter)["propulsion.request"]
    assert f"{request.parent.span_id:016x}" == PARENT
    span_id = f"{request.context.span_id:016x}"
    assert passed_on == {"traceparent": f"00-{TRACE}-{span_id}-01", "tracestate": "vendor=x"}


def test_a_trace_that_the_client_does_not_sample_is_not_exported(client, exporter):
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
    passed_on = client.post("/v1/chat/completions", headers=headers).json()["headers"]
    assert passed_on["traceparent"].endswith("-00")
    assert not exporter.get_finished_spans()


@pytest.mark.parametrize("header", ["", "garbage", "00-0-0-00", "00-" + "z" * 32 + "-x-01"])
def test_a_malformed_trace_header_starts_a_new_trace(client, exporter, header):
    response = client.post("/v1/chat/completions", headers={"traceparent": header})
    assert response.status_code == 200
    assert by_name(exporter)["propulsion.request"].parent is None


def test_a_request_that_fails_marks_its_spans(client, exporter):
    assert client.post("/v1/chat/completions?missing=1").status_code == 500
    spans = by_name(exporter)
    assert spans["propulsion.resolve"].status.status_code is StatusCode.ERROR
    assert spans["propulsion.request"].status.status_code is StatusCode.ERROR
    assert spans["propulsion.request"].attributes["propulsion.outcome"] == "server_error"


def test_probes_make_no_spans(client, exporter):
    client.get("/health")
    assert "propulsion.request" not in by_name(exporter)


def test_log_lines_of_a_request_carry_its_trace(client, exporter):
    with span("propulsion.resolve"):
        token = current_request.set(RequestRecord(request_id="r"))
        try:
            line = JsonFormatter().format(entry())
        finally:
            current_request.reset(token)
        assert current_trace_id() in line


def test_without_tracing_headers_pass_unchanged_and_spans_are_nothing(client):
    header = f"00-{TRACE}-{PARENT}-01"
    response = client.post("/v1/chat/completions", headers={"traceparent": header})
    assert response.json() == {"headers": {"traceparent": header}, "trace": None}
    with span("propulsion.load", adapter="a") as current:
        assert current is None


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("http://collector:4318", "http://collector:4318/v1/traces"),
        ("https://collector/", "https://collector/v1/traces"),
        ("http://collector/custom", "http://collector/custom"),
        ("grpc://collector:4317", "grpc://collector:4317"),
    ],
)
def test_a_bare_http_endpoint_gets_the_standard_path(endpoint, url):
    assert traces_url(endpoint) == url


def test_an_unknown_protocol_is_refused():
    with pytest.raises(ConfigError, match=PROTOCOL_VARIABLE):
        otlp_exporter("http://collector", "http/json")


@pytest.fixture
def collector():
    with collecting() as collector:
        yield collector


def test_spans_reach_a_real_collector_over_http(client, collector, monkeypatch):
    monkeypatch.delenv(PROTOCOL_VARIABLE, raising=False)
    stop = start_exporting(collector.endpoint)
    try:
        client.post("/v1/chat/completions")
    finally:
        stop()
    assert set(collector.paths) == {"/v1/traces"}
    names = {sent.name for sent in collector.spans}
    assert names == {"propulsion.request", "propulsion.resolve", "propulsion.load"}


def test_a_collector_that_is_away_harms_no_request(client, monkeypatch):
    monkeypatch.delenv(PROTOCOL_VARIABLE, raising=False)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    stop = start_exporting("http://127.0.0.1:9")
    try:
        assert client.post("/v1/chat/completions").status_code == 200
    finally:
        stop()
