"""Measures what the engine yields: tokens, time to first token, gaps between tokens, queue time."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from time import perf_counter
from typing import Any

from serving import vllm_compat
from serving.observability.metrics import BASE, BLEND, ServeMetrics
from serving.observability.record import RequestRecord, current_request


def instrument_engine(engine: Any, metrics: ServeMetrics) -> None:
    """Have a vLLM engine client's `generate` and `encode` measure what they yield.

    The counts also go to the current RequestRecord, while the request runs. Instrumenting an engine
    again changes nothing.
    """
    generate, encode = engine.generate, engine.encode
    if hasattr(generate, "propulsion_original"):
        return

    async def measured_generate(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        meter = _Meter(metrics, kwargs.get("lora_request"), _is_cumulative(args, kwargs))
        with meter, vllm_compat.client_errors():
            # Closed with us, so that an answer nobody reads any more is aborted at once.
            async with aclosing(generate(*args, **kwargs)) as outputs:
                async for output in outputs:
                    meter.take(output)
                    yield output

    async def measured_encode(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        meter = _Meter(metrics, kwargs.get("lora_request"), cumulative=False)
        with meter, vllm_compat.client_errors():
            async with aclosing(encode(*args, **kwargs)) as outputs:
                async for output in outputs:
                    meter.take_prompt(output)
                    yield output

    measured_generate.propulsion_original = generate  # type: ignore[attr-defined]
    engine.generate, engine.encode = measured_generate, measured_encode


class _Meter:
    """Measures the outputs of one call of the engine."""

    __slots__ = (
        *("_cumulative", "_label", "_last", "_metrics", "_record", "_seen", "_started", "_tokens"),
        "_waiting",
    )

    def __init__(self, metrics: ServeMetrics, lora_request: Any, cumulative: bool):
        record = current_request.get() or RequestRecord()
        self._metrics = metrics
        self._record = record
        self._started = record.started
        self._label = record.label or _label_of(metrics, lora_request)
        self._tokens = metrics.tokens(self._label)
        self._cumulative = cumulative
        # By the choice's index: when its last tokens came, and how many there were.
        self._last: dict[int, float] = {}
        self._seen: dict[int, int] = {}
        self._waiting = True

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # A client that leaves raises CancelledError or GeneratorExit, which are no Exception.
        if kind is not None and issubclass(kind, Exception):
            self._record.engine_failed = True

    def take(self, output: Any) -> None:
        """Measure a RequestOutput; called once per output, so mostly once per token."""
        now = perf_counter()
        if self._waiting:
            self._take_first(output, now)
        for choice in output.outputs:
            index, num_tokens = choice.index, len(choice.token_ids)
            if self._cumulative:
                num_tokens -= self._seen.get(index, 0)
                self._seen[index] = len(choice.token_ids)
            if not num_tokens:
                continue
            self._tokens.generated += num_tokens
            self._record.generated_tokens += num_tokens
            before = self._last.get(index)
            if before is not None:
                self._tokens.observe_gap((now - before) / num_tokens, num_tokens)
            elif num_tokens > 1:
                gap = _mean_gap(output.metrics)
                if gap > 0:
                    self._tokens.observe_gap(gap, num_tokens - 1)
            self._last[index] = now

    def take_prompt(self, output: Any) -> None:
        """Count the prompt of the first output, of any kind."""
        if self._waiting:
            self._waiting = False
            num_tokens = len(output.prompt_token_ids or ())
            self._metrics.count_prompt_tokens(self._label, num_tokens)
            self._record.prompt_tokens += num_tokens

    def _take_first(self, output: Any, now: float) -> None:
        self.take_prompt(output)
        stats = output.metrics
        if stats is not None and 0 < stats.queued_ts <= stats.scheduled_ts:
            self._metrics.observe_queue(self._label, stats.scheduled_ts - stats.queued_ts)
        most = max((len(choice.token_ids) for choice in output.outputs), default=0)
        if self._record.has_first_token or not most:
            return
        self._record.has_first_token = True
        seconds = now - self._started
        if output.finished and most > 1:
            # The whole answer at once: the first token is older by what the rest took, which only
            # the engine knows. (Differences, since its clock may be another machine's.)
            if stats is None or stats.first_token_ts <= 0:
                return
            seconds -= stats.last_token_ts - stats.first_token_ts
        self._metrics.observe_first_token(self._label, max(seconds, 0.0))


def _mean_gap(stats: Any) -> float:
    """Mean seconds between the tokens that the engine has made for a sequence; 0 if not known."""
    if stats is None or stats.first_token_ts <= 0 or stats.num_generation_tokens < 2:
        return 0.0
    return (stats.last_token_ts - stats.first_token_ts) / (stats.num_generation_tokens - 1)


def _is_cumulative(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    # The server asks for deltas or for the final output; vLLM's own default repeats all tokens.
    params = kwargs.get("sampling_params", args[1] if len(args) > 1 else None)
    kind = getattr(params, "output_kind", None)
    return getattr(kind, "name", "") == "CUMULATIVE"


def _label_of(metrics: ServeMetrics, lora_request: Any) -> str:
    if lora_request is None:
        return BASE
    name = lora_request.lora_name
    if ":" in name or "+" in name:
        return BLEND
    return metrics.adapter_label(name.partition("@")[0])
