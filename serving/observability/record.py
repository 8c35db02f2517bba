"""What is known of the request being answered, for whoever is asked about it deeper down."""

import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass
class RequestRecord:
    """What is known of the request being answered.

    Attributes:
        label: its adapter's metrics label; None until a model was looked up.
        on_end: each called once, when the response has been sent or the client has left.
        request_id: the client's, or one made here; vLLM's ids hold it too.
        reference: what answers (`sst2@v3`, or a blend's canonical text), sent as
            `X-Adapter-Version`; None for the base.
        was_resident: whether the engine held the adapter when the request came; None for the base.
        prompt_tokens: read by the engine for it, all its prompts together.
        generated_tokens: generated for it, all its choices together.
        tenant: whose key it came with; known at its end.
        started: when it came, by `time.perf_counter`.
        status: HTTP status sent, None before that.
        outcome: how it ended, None before that.
        retry_after: seconds after which a refused request may succeed, sent as `Retry-After`.
        engine_failed: the engine raised, which a stream that had begun cannot tell by its status.
        has_first_token: its time to first token has been observed.
        ended: it is over. Tasks that it started outlive it and still see it.
    """

    label: str | None = None
    on_end: list[Callable[[], None]] = field(default_factory=list)
    request_id: str = ""
    reference: str | None = None
    was_resident: bool | None = None
    prompt_tokens: int = 0
    generated_tokens: int = 0
    tenant: str | None = None
    started: float = field(default_factory=time.perf_counter)
    status: int | None = None
    outcome: str | None = None
    retry_after: int | None = None
    engine_failed: bool = False
    has_first_token: bool = False
    ended: bool = False


# A context variable: vLLM's handlers do not pass the HTTP request to where models are checked.
current_request: ContextVar[RequestRecord | None] = ContextVar("propulsion_request", default=None)


def current_request_id() -> str | None:
    """The id of the request that the calling task answers; None outside of one."""
    record = current_request.get()
    return record.request_id if record is not None and not record.ended else None


def tokens_used() -> int:
    """Tokens read and generated so far for the request that the calling task answers."""
    record = current_request.get()
    return record.prompt_tokens + record.generated_tokens if record is not None else 0
