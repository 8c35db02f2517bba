import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry

from serving.observability.instrument import instrument_engine
from serving.observability.metrics import ServeMetrics
from serving.observability.record import RequestRecord, current_request, tokens_used


@dataclass
class Stats:
    """The fields of vLLM's RequestStateStats that are read; seconds of the engine's clock."""

    queued_ts: float = 100.0
    scheduled_ts: float = 100.25
    first_token_ts: float = 100.5
    last_token_ts: float = 100.5
    num_generation_tokens: int = 1


@dataclass
class Choice:
    token_ids: list[int]
    index: int = 0


@dataclass
class Output:
    outputs: list[Choice]
    finished: bool = False
    prompt_token_ids: list[int] | None = field(default_factory=lambda: [1, 2, 3])
    metrics: Stats | None = field(default_factory=Stats)


class EngineClientStandIn:
    """Yields what it was given, as vLLM's engine client does; a real one takes half a minute."""

    def __init__(self, outputs, error=None, hang=False):
        self.outputs, self.error, self.hang = outputs, error, hang
        self.ended_by: str | None = None
        self.calls: list[tuple] = []

    async def generate(self, *args, **kwargs):
        self.calls.append((args, kwargs))
        try:
            for output in self.outputs:
                yield output
            if self.hang:
                await asyncio.Event().wait()
            if self.error:
                raise self.error
            self.ended_by = "end"
        except BaseException as error:
            self.ended_by = type(error).__name__
            # As vLLM does here to abort the request.
            await asyncio.sleep(0)
            raise

    encode = generate


def lora(name: str) -> SimpleNamespace:
    return SimpleNamespace(lora_name=name)


class Case:
    """An instrumented engine, its registry and the record of one request."""

    def __init__(self, outputs, label=None, **options):
        self.registry = CollectorRegistry()
        self.engine = EngineClientStandIn(outputs, **options)
        self.record = RequestRecord(label=label)
        instrument_engine(self.engine, ServeMetrics(8, self.registry))

    async def drain(self, method="generate", **options):
        current_request.set(self.record)
        stream = getattr(self.engine, method)("prompt", **options)
        return [output async for output in stream]

    def value(self, name, adapter="a", **labels):
        labels = {"adapter": adapter, **labels}
        return self.registry.get_sample_value(f"propulsion_serve_{name}", labels)


def streamed(*counts: int) -> list[Output]:
    last = len(counts) - 1
    return [Output([Choice([7] * n)], finished=i == last) for i, n in enumerate(counts)]


def test_a_stream_is_measured_and_passed_on_unchanged():
    outputs = streamed(1, 1, 2, 1)
    case = Case(outputs)
    seen = asyncio.run(case.drain(lora_request=lora("a@v3"), request_id="r"))
    assert seen == outputs
    assert case.engine.calls == [(("prompt",), {"lora_request": lora("a@v3"), "request_id": "r"})]
    assert case.value("generated_tokens_total") == 5
    assert case.value("prompt_tokens_total") == 3
    assert case.value("ttft_seconds_count") == 1
    assert case.value("inter_token_seconds_count") == 4
    assert case.value("queue_seconds_sum") == pytest.approx(0.25)
    assert (case.record.prompt_tokens, case.record.generated_tokens) == (3, 5)


def test_tokens_are_known_to_whoever_charges_for_them():
    case = Case(streamed(1, 1))

    async def charge():
        await case.drain()
        return tokens_used()

    assert asyncio.run(charge()) == 5


def test_the_records_label_wins_and_without_any_the_engines_request_tells():
    for label, options, expected in [
        ("known", {"lora_request": lora("a@v1")}, "known"),
        (None, {"lora_request": lora("a@v1:0.7+b@v2:0.3")}, "blend"),
        (None, {"lora_request": None}, "base"),
        (None, {}, "base"),
    ]:
        case = Case(streamed(1), label=label)
        asyncio.run(case.drain(**options))
        assert case.value("generated_tokens_total", adapter=expected) == 1


def test_a_whole_answer_takes_its_latencies_from_the_engine():
    stats = Stats(last_token_ts=102.5, num_generation_tokens=5)
    case = Case([Output([Choice([7] * 5)], finished=True, metrics=stats)])
    case.record.started -= 3.0
    asyncio.run(case.drain(lora_request=lora("a@v1")))
    # It came 3 seconds ago, and the tokens after the first took 2 of them.
    assert case.value("ttft_seconds_sum") == pytest.approx(1.0, abs=0.5)
    assert case.value("inter_token_seconds_count") == 4
    assert case.value("inter_token_seconds_sum") == pytest.approx(2.0)


def test_a_whole_answer_without_the_engines_stats_counts_tokens_alone():
    case = Case([Output([Choice([7] * 5)], finished=True, metrics=None)])
    asyncio.run(case.drain(lora_request=lora("a@v1")))
    assert case.value("generated_tokens_total") == 5
    assert not case.value("ttft_seconds_count")
    assert not case.value("queue_seconds_count")
    assert not case.value("inter_token_seconds_count")


def test_gaps_are_between_the_tokens_of_one_choice():
    steps = [Output([Choice([7], index)]) for _ in range(3) for index in range(4)]
    case = Case(steps)
    asyncio.run(case.drain(lora_request=lora("a@v1")))
    assert case.value("generated_tokens_total") == 12
    assert case.value("inter_token_seconds_count") == 4 * 2
    assert case.value("prompt_tokens_total") == 3
    assert case.value("ttft_seconds_count") == 1


def test_cumulative_outputs_count_each_token_once():
    outputs = [Output([Choice([7] * n)], finished=n == 4) for n in (1, 2, 4)]
    case = Case(outputs)
    params = SimpleNamespace(output_kind=SimpleNamespace(name="CUMULATIVE"))
    asyncio.run(case.drain(sampling_params=params, lora_request=lora("a@v1")))
    assert case.value("generated_tokens_total") == 4
    assert case.value("inter_token_seconds_count") == 3


def test_several_prompts_of_one_request_have_one_first_token():
    case = Case(streamed(1, 1))

    async def both():
        await case.drain(lora_request=lora("a@v1"))
        await case.drain(lora_request=lora("a@v1"))

    asyncio.run(both())
    assert case.value("ttft_seconds_count") == 1
    assert case.value("queue_seconds_count") == 2
    assert (case.record.prompt_tokens, case.record.generated_tokens) == (6, 4)


def test_an_answer_without_tokens_has_no_first_one():
    case = Case([Output([Choice([])], finished=True)])
    asyncio.run(case.drain(lora_request=lora("a@v1")))
    assert not case.value("ttft_seconds_count")
    assert case.value("prompt_tokens_total") == 3


def test_a_prompt_of_embeddings_has_no_tokens_to_count():
    case = Case([Output([Choice([7])], prompt_token_ids=None)])
    asyncio.run(case.drain(lora_request=lora("a@v1")))
    assert case.value("prompt_tokens_total") == 0


def test_closing_the_stream_closes_the_engines_at_once():
    case = Case(streamed(1, 1, 1))

    async def leave():
        stream = case.engine.generate("prompt", lora_request=lora("a@v1"))
        await anext(stream)
        await stream.aclose()
        return case.engine.ended_by

    assert asyncio.run(leave()) == "GeneratorExit"
    assert case.value("generated_tokens_total") == 1
    assert not case.record.engine_failed


def test_cancelling_the_reader_cancels_the_engines_stream():
    case = Case(streamed(1), hang=True)

    async def cancel():
        reader = asyncio.create_task(case.drain(lora_request=lora("a@v1")))
        while not case.record.generated_tokens:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader

    asyncio.run(cancel())
    assert case.engine.ended_by == "CancelledError"
    assert not case.record.engine_failed


def test_an_engine_that_raises_is_told_to_the_record():
    case = Case(streamed(1), error=RuntimeError("dead"))
    with pytest.raises(RuntimeError, match="dead"):
        asyncio.run(case.drain(lora_request=lora("a@v1")))
    assert case.record.engine_failed
    assert case.value("generated_tokens_total") == 1


def test_pooling_counts_prompt_tokens_alone():
    case = Case([SimpleNamespace(prompt_token_ids=[1, 2, 3, 4], finished=True)])
    asyncio.run(case.drain("encode", lora_request=lora("a@v1")))
    assert case.value("prompt_tokens_total") == 4
    assert case.value("generated_tokens_total") == 0
    assert (case.record.prompt_tokens, case.record.generated_tokens) == (4, 0)


def test_instrumenting_an_engine_again_changes_nothing():
    case = Case(streamed(1))
    before = case.engine.generate
    instrument_engine(case.engine, ServeMetrics(8, CollectorRegistry()))
    assert case.engine.generate is before


def test_without_a_request_around_it_a_call_is_measured_from_its_start():
    case = Case(streamed(1, 1))

    async def drain():
        return [output async for output in case.engine.generate("p", lora_request=lora("a@v1"))]

    assert len(asyncio.run(drain())) == 2
    assert case.value("ttft_seconds_count") == 1
