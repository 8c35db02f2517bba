"""What is read of vLLM itself: its figures of a request, its ids, its traces, its logs."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.serving.live_server import STARTUP_SECONDS, free_port
from tests.serving.observability.collector import collecting

pytestmark = pytest.mark.slow

COMMAND = (sys.executable, "-m", "tests.serving.observability.traced_server")
ROOT = Path(__file__).parents[3]
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class TracedServer:
    """A traced_server.py in a process of its own."""

    def __init__(self, base: Path, log: Path, endpoint: str):
        port = free_port()
        self.log = log
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL", "VLLM_LOG"))}
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [*COMMAND, str(base), str(port), endpoint],
                cwd=ROOT,
                # Spans are sent every 5 seconds by default.
                env={**inherited, "OTEL_BSP_SCHEDULE_DELAY": "200", "VLLM_NO_USAGE_STATS": "1"},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def wait_until_healthy(self) -> None:
        deadline = time.monotonic() + STARTUP_SECONDS
        while self.process.poll() is None and time.monotonic() < deadline:
            try:
                if self.client.get("/health").status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.2)
        raise RuntimeError(f"the server did not start:\n{self.log.read_text()[-4000:]}")

    def complete(self, *, request_id: str, **options) -> httpx.Response:
        headers = {"X-Request-Id": request_id, "traceparent": f"00-{TRACE}-{PARENT}-01"}
        body = {"model": "tiny", "prompt": "the cat", "ignore_eos": True, **options}
        response = self.client.post("/v1/completions", json=body, headers=headers)
        assert response.status_code == 200, response.text
        return response

    def value(self, name: str, **labels: str) -> float:
        families = text_string_to_metric_families(self.client.get("/metrics").text)
        samples = [s for f in families for s in f.samples if s.name == name]
        return sum(s.value for s in samples if labels.items() <= s.labels.items())

    def ours(self, name: str) -> float:
        return self.value(f"propulsion_serve_{name}", adapter="base")

    def entries(self) -> list[dict]:
        # The last line may still be under way.
        lines = self.log.read_text().split("\n")[:-1]
        return [json.loads(line) for line in lines if line.startswith("{")]

    def access_of(self, **fields: str) -> dict:
        """The access log's only line with these fields; it follows the answer."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            access = [e for e in self.entries() if e["logger"] == "serving.access"]
            found = [e for e in access if fields.items() <= e.items()]
            if found:
                (entry,) = found
                return entry
            time.sleep(0.1)
        raise AssertionError(f"no access line with {fields}")

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.client.close()
        try:
            self.process.wait(timeout=60)
        finally:
            self.process.kill()


@pytest.fixture(scope="module")
def collector():
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="module")
def server(base, tmp_path_factory, collector):
    log = tmp_path_factory.mktemp("log") / "server.log"
    server = TracedServer(base, log, collector.endpoint)
    try:
        server.wait_until_healthy()
        yield server
    finally:
        server.stop()


def changes(server: TracedServer, act, *names: str) -> dict[str, float]:
    before = {name: server.ours(name) for name in names}
    act()
    return {name: server.ours(name) - before[name] for name in names}


NAMES = (
    "prompt_tokens_total",
    "generated_tokens_total",
    "ttft_seconds_count",
    "inter_token_seconds_count",
    "queue_seconds_count",
)


def test_a_whole_answer_has_queue_time_first_token_and_gaps_from_vllms_figures(server):
    begun = time.monotonic()
    done = changes(server, lambda: server.complete(request_id="whole", max_tokens=9), *NAMES)
    seconds = time.monotonic() - begun
    assert done == dict(zip(NAMES, (7, 9, 1, 8, 1), strict=True))
    parts = [server.ours(f"{name}_seconds_sum") for name in ("ttft", "inter_token")]
    assert all(part > 0 for part in parts)
    assert sum(parts) < seconds
    # Waiting in the queue is a part of waiting for the first token.
    assert 0 < server.ours("queue_seconds_sum") < parts[0]


def test_a_streamed_answer_has_the_same_counts(server):
    def act():
        server.complete(request_id="stream", max_tokens=9, stream=True)

    assert changes(server, act, *NAMES) == dict(zip(NAMES, (7, 9, 1, 8, 1), strict=True))


def test_several_choices_count_each_token_and_the_prompt_once(server):
    def act():
        server.complete(request_id="many", max_tokens=5, n=3, temperature=1.0)

    done = changes(server, act, *NAMES)
    assert done == dict(zip(NAMES, (7, 15, 1, 12, 1), strict=True))


def test_several_prompts_have_one_first_token(server):
    def act():
        server.complete(request_id="two", prompt=["the cat", "a dog"], max_tokens=4, stream=True)

    done = changes(server, act, *NAMES)
    assert done == dict(zip(NAMES, (12, 8, 1, 6, 2), strict=True))


def test_our_counts_grow_as_vllms_do(server):
    pairs = {
        "generated_tokens_total": "vllm:generation_tokens_total",
        "prompt_tokens_total": "vllm:prompt_tokens_total",
        "queue_seconds_sum": "vllm:request_queue_time_seconds_sum",
    }
    before = {theirs: server.value(theirs) for theirs in pairs.values()}
    done = changes(server, lambda: server.complete(request_id="again", max_tokens=6), *pairs)
    for ours, theirs in pairs.items():
        assert done[ours] == pytest.approx(server.value(theirs) - before[theirs])


def test_a_client_that_leaves_stops_the_engine_and_is_logged_as_aborted(server):
    body = {"model": "tiny", "prompt": "x", "max_tokens": 120, "ignore_eos": True, "stream": True}
    with server.client.stream("POST", "/v1/completions", json=body) as response:
        next(response.iter_bytes())
    assert 0 < server.access_of(outcome="aborted")["generated_tokens"] < 120
    deadline = time.monotonic() + 30
    while server.value("vllm:num_requests_running") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert server.value("vllm:num_requests_running") == 0


def test_vllms_ids_hold_the_requests_id_and_the_response_has_it_once(server):
    response = server.complete(request_id="abc-1", max_tokens=1)
    assert "abc-1" in response.json()["id"]
    assert response.headers.get_list("x-request-id") == ["abc-1"]


def test_vllms_span_is_a_child_of_the_requests_in_the_clients_trace(server, collector):
    server.complete(request_id="traced-1", max_tokens=3)

    def of_request(name: str, attribute: str, text: str) -> list:
        return [
            span
            for span in collector.named(name)
            if any(a.key == attribute and text in a.value.string_value for a in span.attributes)
        ]

    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        ours = of_request("propulsion.request", "propulsion.request_id", "traced-1")
        theirs = of_request("llm_request", "gen_ai.request.id", "traced-1")
        if ours and theirs:
            break
        time.sleep(0.1)
    assert (len(ours), len(theirs)) == (1, 1), [span.name for span in collector.spans]
    assert ours[0].trace_id.hex() == theirs[0].trace_id.hex() == TRACE
    assert ours[0].parent_span_id.hex() == PARENT
    assert theirs[0].parent_span_id == ours[0].span_id
    tokens = {a.key: a.value.int_value for a in ours[0].attributes if a.key.endswith("tokens")}
    assert tokens == {"gen_ai.usage.input_tokens": 7, "gen_ai.usage.output_tokens": 3}


def test_the_servers_and_the_engines_lines_are_json_with_the_requests_id(server):
    server.complete(request_id="logged-1", max_tokens=2)
    access = server.access_of(request_id="logged-1")
    assert (access["status"], access["generated_tokens"], access["trace_id"]) == (200, 2, TRACE)
    assert any(e["logger"].startswith("vllm.v1.engine.core") for e in server.entries())
    assert "the cat" not in server.log.read_text()
