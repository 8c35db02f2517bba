"""OpenTelemetry traces; without an endpoint nothing is imported and a span costs one comparison."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any
from urllib.parse import urlsplit

from propulsion.errors import ConfigError
from serving.observability.record import RequestRecord

PROTOCOL_VARIABLE = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"

_OPERATIONS = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "text_completion",
    "/v1/embeddings": "embeddings",
}
_TRACE_HEADERS = ("traceparent", "tracestate")
_MAX_PATH = 256
_OFF: AbstractContextManager[Any] = nullcontext()

# Set while traces are exported, by `start_tracing` alone.
_tracer: Any = None


def traces_url(endpoint: str) -> str:
    """Where traces go for an `otlp_endpoint`: OTLP over HTTP adds `/v1/traces` to a bare host."""
    parts = urlsplit(endpoint)
    if parts.scheme in ("http", "https") and parts.path in ("", "/"):
        return parts._replace(path="/v1/traces").geturl()
    return endpoint


def otlp_exporter(endpoint: str, protocol: str = "http/protobuf") -> Any:
    """The exporter that sends spans to a collector.

    Args:
        endpoint: its whole URL, from `traces_url` for HTTP.
        protocol: "http/protobuf" or "grpc", as the OTEL_EXPORTER_OTLP_TRACES_PROTOCOL that vLLM
            reads too.

    Raises:
        ConfigError: the protocol is another one, or OpenTelemetry is not installed.
    """
    try:
        if protocol == "http/protobuf":
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            return OTLPSpanExporter(endpoint=endpoint)
        if protocol == "grpc":
            from opentelemetry.exporter.otlp.proto.grpc import trace_exporter

            insecure = not endpoint.startswith("https://")
            return trace_exporter.OTLPSpanExporter(endpoint=endpoint, insecure=insecure)
    except ImportError as error:
        raise ConfigError(
            f"--otlp-endpoint needs OpenTelemetry ({error}); install opentelemetry-sdk and "
            "opentelemetry-exporter-otlp"
        ) from error
    raise ConfigError(f"{PROTOCOL_VARIABLE}={protocol}: use http/protobuf or grpc")


def start_exporting(endpoint: str) -> Callable[[], None]:
    """Send spans to an `otlp_endpoint` from now on; see `start_tracing`.

    The protocol is OTEL_EXPORTER_OTLP_TRACES_PROTOCOL's, or gRPC for `grpc://` and HTTP for all
    else; it is set in the environment, where vLLM and its processes read it.
    """
    default = "grpc" if endpoint.startswith("grpc:") else "http/protobuf"
    protocol = os.environ.setdefault(PROTOCOL_VARIABLE, default)
    return start_tracing(otlp_exporter(traces_url(endpoint), protocol))


def start_tracing(exporter: Any, *, batch: bool = True) -> Callable[[], None]:
    """Export spans from now on.

    The provider is ours alone, not the process's: vLLM sets that one for its own spans.

    Args:
        exporter: an OpenTelemetry SpanExporter.
        batch: send in the background; otherwise each span as it ends.

    Returns:
        What sends the last spans and ends tracing.
    """
    global _tracer
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor

    from propulsion.version import __version__

    resource = Resource.create({"service.name": "propulsion-serve", "service.version": __version__})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor((BatchSpanProcessor if batch else SimpleSpanProcessor)(exporter))
    _tracer = provider.get_tracer("propulsion", __version__)

    def stop() -> None:
        global _tracer
        _tracer = None
        provider.shutdown()

    return stop


def span(name: str, **attributes: Any) -> AbstractContextManager[Any]:
    """A span around a `with` block, a child of the one around that; nothing while tracing is off.

    Args:
        name: such as "propulsion.resolve".
        attributes: each recorded as `propulsion.<key>`, unless it is None.

    Returns:
        A context manager of the span, or of None while tracing is off. An exception marks it.
    """
    if _tracer is None:
        return _OFF
    named = {f"propulsion.{key}": value for key, value in attributes.items() if value is not None}
    started: AbstractContextManager[Any] = _tracer.start_as_current_span(name, attributes=named)
    return started


def current_trace_id() -> str | None:
    """The trace that runs here, 32 hex digits; None where there is none."""
    if _tracer is None:
        return None
    from opentelemetry import trace

    context = trace.get_current_span().get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else None


@contextmanager
def request_span(scope: Any, record: RequestRecord) -> Iterator[Any]:
    """The span `propulsion.request` around the answer to an ASGI request.

    It continues the client's W3C trace, and yields the scope to answer, whose `traceparent` is
    this span's: vLLM reads that header and makes its own span a child.
    """
    if _tracer is None:
        yield scope
        return
    from opentelemetry.trace import SpanKind, StatusCode
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    propagator = TraceContextTextMapPropagator()
    carrier = {
        name.decode("latin-1"): value.decode("latin-1")
        for name, value in scope["headers"]
        if name.decode("latin-1") in _TRACE_HEADERS
    }
    with _tracer.start_as_current_span(
        "propulsion.request", context=propagator.extract(carrier), kind=SpanKind.SERVER
    ) as request:
        outgoing: dict[str, str] = {}
        propagator.inject(outgoing)
        others = [h for h in scope["headers"] if h[0].decode("latin-1") not in _TRACE_HEADERS]
        own = [(name.encode(), value.encode()) for name, value in outgoing.items()]
        try:
            yield {**scope, "headers": [*others, *own]}
        finally:
            request.set_attributes(_attributes(scope, record))
            if record.outcome == "server_error":
                request.set_status(StatusCode.ERROR)


def _attributes(scope: Any, record: RequestRecord) -> dict[str, Any]:
    attributes = {
        "http.request.method": scope.get("method"),
        "url.path": scope["path"][:_MAX_PATH],
        "http.response.status_code": record.status,
        "gen_ai.operation.name": _OPERATIONS.get(scope["path"]),
        "gen_ai.usage.input_tokens": record.prompt_tokens or None,
        "gen_ai.usage.output_tokens": record.generated_tokens or None,
        "propulsion.adapter": record.reference or record.label,
        "propulsion.tenant": record.tenant,
        "propulsion.request_id": record.request_id,
        "propulsion.outcome": record.outcome,
    }
    return {name: value for name, value in attributes.items() if value is not None}
