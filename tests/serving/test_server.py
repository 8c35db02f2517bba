"""The server as its clients see it: one process, real HTTP, the official OpenAI client."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import openai
import pytest
import torch
from prometheus_client.parser import text_string_to_metric_families

from adapters import AdapterStore, base_fingerprint
from tests.serving import tiny, tiny_heads
from tests.serving.live_server import LiveServer

pytestmark = pytest.mark.slow

KEY = "correct-horse"
TOP_ADAPTERS = 2
CAPACITY = 3
PROMPT = tiny.PROMPTS[0]
TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, base: Path, adapter_folders) -> AdapterStore:
    store = AdapterStore(tmp_path_factory.mktemp("store"))
    for name, folder in adapter_folders.items():
        store.publish(folder, name, base_fingerprint=base_fingerprint(base))
    return store


@pytest.fixture(scope="module")
def server(base: Path, store: AdapterStore, tmp_path_factory) -> Iterator[LiveServer]:
    log = tmp_path_factory.mktemp("server") / "log"
    limits = ["--max-adapters", str(CAPACITY), "--metrics-top-adapters", str(TOP_ADAPTERS)]
    # These tests change the store behind the server.
    limits += ["--resolution-ttl-seconds", "0"]
    vllm_options = ["--", "--trust-request-chat-template"]
    server = LiveServer(base, store.path, log, *limits, *vllm_options, key=KEY)
    yield server
    server.stop()


@pytest.fixture
def client(server: LiveServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


def token_ids(response: httpx.Response) -> list[int]:
    assert response.status_code == 200, response.text
    return response.json()["choices"][0]["token_ids"]


def error_of(response: httpx.Response, status: int) -> dict:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == status
    return error


def metric(server: LiveServer, sample: str, **labels: str) -> float:
    """The sum of a metric's samples that have these labels."""
    families = text_string_to_metric_families(server.client.get("/metrics").text)
    return sum(
        found.value
        for family in families
        for found in family.samples
        if found.name == sample and labels.items() <= found.labels.items()
    )


def assert_lives_on(server: LiveServer, expected: dict) -> None:
    for model, name in (("tiny-base", None), ("all-15", "all-15")):
        answer = token_ids(server.complete(model, PROMPT, tiny.MAX_TOKENS))
        assert answer == expected[name][0]


def test_concurrent_requests_for_base_and_adapters_answer_like_peft(server, expected):
    assert len(expected) > CAPACITY
    work = [
        (name or "tiny-base", prompt, expected[name][i])
        for i, prompt in enumerate(tiny.PROMPTS)
        for name in expected
    ]
    with ThreadPoolExecutor(len(work)) as pool:
        responses = list(pool.map(lambda w: server.complete(w[0], w[1], tiny.MAX_TOKENS), work))
    assert [token_ids(response) for response in responses] == [answer for *_, answer in work]


@pytest.mark.parametrize("reference", ["mlp-3", "mlp-3@v1", "mlp-3@latest"])
def test_a_name_a_version_and_an_alias_reach_the_adapter(server, expected, reference):
    response = server.complete(reference, PROMPT, tiny.MAX_TOKENS)
    assert token_ids(response) == expected["mlp-3"][0]
    assert response.json()["model"] == "mlp-3@v1"


def test_streamed_answers_equal_whole_ones(server, client, expected):
    request = {"prompt": PROMPT, "max_tokens": tiny.MAX_TOKENS, "temperature": 0}
    options = {"ignore_eos": True, "return_token_ids": True}
    for model, name in (("all-15", "all-15"), ("tiny-base", None)):
        stream = client.completions.create(model=model, stream=True, extra_body=options, **request)
        chunks = [chunk.choices[0] for chunk in stream]
        assert len(chunks) > 1
        assert [i for chunk in chunks for i in chunk.token_ids or []] == expected[name][0]


def test_chat_answers_by_adapter_and_the_lack_of_a_template_is_the_clients_error(
    server, client, expected
):
    chat = {"model": "attn-1", "messages": [{"role": "user", "content": PROMPT}]}
    with pytest.raises(openai.BadRequestError, match="chat template"):
        client.chat.completions.create(**chat)
    options = {"chat_template": TEMPLATE, "ignore_eos": True, "return_token_ids": True}
    limits = {"max_tokens": tiny.MAX_TOKENS, "temperature": 0}
    answer = client.chat.completions.create(**chat, **limits, extra_body=options)
    assert answer.choices[0].token_ids == expected["attn-1"][0]
    stream = client.chat.completions.create(**chat, **limits, extra_body=options, stream=True)
    choices = [choice.model_dump() for chunk in stream for choice in chunk.choices]
    ids = [i for choice in choices for i in choice.get("token_ids") or []]
    assert ids == expected["attn-1"][0]


def test_models_lists_the_base_and_every_version(client, store, base):
    models = {model.id: model for model in client.models.list()}
    assert set(models) == {"tiny-base", *(version.reference for version in store.list())}
    assert models["all-15@v1"].parent == "tiny-base"
    told = "".join(model.model_dump_json() for model in models.values())
    assert str(store.path) not in told
    assert str(base) not in told


@pytest.mark.parametrize(
    "model", ["nobody", "all-15@v9", "all-15@prod", "../all-15", "all-15/v1", "@", "a" * 5000]
)
def test_an_unknown_adapter_is_not_found_and_the_server_lives_on(server, expected, model):
    error = error_of(server.complete(model, PROMPT, 1), 404)
    assert (error["type"], error["param"]) == ("NotFoundError", "model")
    assert_lives_on(server, expected)


def test_the_openai_client_understands_the_error(client):
    with pytest.raises(openai.NotFoundError, match="nobody"):
        client.completions.create(model="nobody", prompt=PROMPT, max_tokens=1)


def test_a_new_version_answers_from_the_next_request_on_and_an_alias_rolls_back(
    server, store, base, adapter_folders, expected
):
    fingerprint = base_fingerprint(base)
    store.publish(adapter_folders["value-2"], "rolling", base_fingerprint=fingerprint)
    assert token_ids(server.complete("rolling", PROMPT, 12)) == expected["value-2"][0]
    store.publish(adapter_folders["up-15"], "rolling", base_fingerprint=fingerprint)
    assert token_ids(server.complete("rolling", PROMPT, 12)) == expected["up-15"][0]
    store.set_alias("rolling", "latest", "v1")
    assert token_ids(server.complete("rolling", PROMPT, 12)) == expected["value-2"][0]
    assert token_ids(server.complete("rolling@v2", PROMPT, 12)) == expected["up-15"][0]


def test_a_damaged_adapter_is_the_servers_error_and_nothing_else_fails(
    server, store, base, adapter_folders, expected
):
    version = store.publish(adapter_folders["all-15"], "damaged")
    file = version.path / "adapter_model.safetensors"
    file.chmod(0o644)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    failures = metric(server, "propulsion_serve_load_failures_total", reason="corrupt")
    error = error_of(server.complete("damaged", PROMPT, 1), 500)
    assert "damaged" in error["message"]
    assert str(store.path) not in error["message"]
    assert metric(server, "propulsion_serve_load_failures_total", reason="corrupt") > failures
    assert_lives_on(server, expected)


def test_an_adapter_that_does_not_fit_is_refused_by_the_engine_which_lives_on(
    server, store, base, expected, tmp_path
):
    folder = tiny.make_adapter(
        tmp_path / "narrow", base, degree=1, target_modules=["q_proj"], seed=0
    )
    tiny.overwrite_weights(folder, {"model.layers.0.self_attn.q_proj": torch.zeros(1, 7)})
    store.publish(folder, "narrow")
    failures = metric(server, "propulsion_serve_load_failures_total", reason="base_mismatch")
    error_of(server.complete("narrow", PROMPT, 1), 400)
    assert metric(server, "propulsion_serve_load_failures_total", reason="base_mismatch") > failures
    assert_lives_on(server, expected)


def test_metrics_count_requests_tokens_and_loads_with_bounded_labels(server, expected):
    adapters = [name for name in expected if name]
    assert len(adapters) > TOP_ADAPTERS
    for name in adapters:
        token_ids(server.complete(name, PROMPT, 2))
    requests = "propulsion_serve_requests_total"
    tokens = "propulsion_serve_generated_tokens_total"
    before = {
        (sample, label): metric(server, sample, adapter=label)
        for sample in (requests, tokens)
        for label in ("base", "other")
    }
    token_ids(server.complete("tiny-base", PROMPT, 5))
    assert metric(server, requests, adapter="base") == before[requests, "base"] + 1
    assert metric(server, tokens, adapter="base") == before[tokens, "base"] + 5
    assert metric(server, requests, adapter="other") == before[requests, "other"] > 0
    families = list(text_string_to_metric_families(server.client.get("/metrics").text))
    ours = [f for f in families if f.name.startswith("propulsion_serve_")]
    labels = {s.labels["adapter"] for f in ours for s in f.samples if "adapter" in s.labels}
    assert {"base", "other"} <= labels
    assert len(labels - {"base", "other", "unknown"}) == TOP_ADAPTERS
    assert 1 <= metric(server, "propulsion_serve_adapters_loaded") <= CAPACITY
    loads = metric(server, "propulsion_serve_adapter_loads_total")
    assert metric(server, "propulsion_serve_adapter_load_seconds_count") == loads > 0
    vllms = {f.name for f in families if f.name.startswith("vllm:")}
    assert "vllm:num_requests_running" in vllms
    assert "vllm:lora_requests_info" not in vllms, "a series for every mix of adapters"


def test_concurrent_first_uses_load_an_adapter_once(server, store, adapter_folders, expected):
    store.publish(adapter_folders["key-3"], "fresh")
    loads = metric(server, "propulsion_serve_adapter_loads_total")
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda _: server.complete("fresh", PROMPT, 12), range(8))
        assert [token_ids(answer) for answer in answers] == [expected["key-3"][0]] * 8
    assert metric(server, "propulsion_serve_adapter_loads_total") == loads + 1


def test_an_adapter_that_classifies_is_refused_with_the_options_that_serve_it(
    server, store, base, tmp_path, expected
):
    store.publish(tiny_heads.make_adapter(tmp_path / "classifier", base, seed=1), "classifier")
    error = error_of(server.complete("classifier", PROMPT, 1), 400)
    assert "--runner pooling --convert classify" in error["message"]
    assert_lives_on(server, expected)


@pytest.mark.parametrize("path", ["/v1/completions", "/invocations", "/tokenize"])
@pytest.mark.parametrize("authorization", [None, "Bearer wrong", f"Basic {KEY}", "Bearer"])
def test_without_a_right_key_nothing_is_generated(server, path, authorization):
    headers = {"Authorization": authorization} if authorization else {}
    body = {"model": "tiny-base", "prompt": PROMPT, "max_tokens": 1}
    response = httpx.post(server.url + path, json=body, headers=headers)
    assert error_of(response, 401)["type"] == "AuthenticationError"
    assert httpx.get(f"{server.url}/health").status_code == 200


def test_the_key_is_neither_logged_nor_measured(server):
    assert "propulsion_serve" in server.client.get("/metrics").text
    assert KEY not in server.client.get("/metrics").text
    assert KEY not in server.log.read_text()


@pytest.mark.parametrize("route", ["load_lora_adapter", "unload_lora_adapter"])
def test_no_route_opens_a_path_that_a_client_names(server, route, adapter_folders):
    body = {"lora_name": "mine", "lora_path": str(adapter_folders["all-15"])}
    assert server.client.post(f"/v1/{route}", json=body).status_code == 404
    assert server.complete("mine", PROMPT, 1).status_code == 404


def test_sigterm_lets_a_running_stream_finish_and_exits_with_success(server, base, adapter_folders):
    """Last in this file: it ends the server that the tests above share."""
    max_tokens = 200
    wanted = tiny.reference_tokens(base, adapter_folders["all-15"], [PROMPT], max_tokens)[0]
    body = {"model": "all-15", "prompt": PROMPT, "max_tokens": max_tokens, "temperature": 0}
    options = {"ignore_eos": True, "return_token_ids": True, "stream": True}
    events: list[str] = []
    with server.client.stream("POST", "/v1/completions", json=body | options) as response:
        for line in response.iter_lines():
            if line:
                events.append(line.removeprefix("data: "))
            if len(events) == 1:
                server.process.terminate()
    assert events.pop() == "[DONE]"
    choices = [json.loads(event)["choices"][0] for event in events]
    assert [i for choice in choices for i in choice["token_ids"] or []] == wanted
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.url}/health")
    assert server.process.wait(timeout=120) == 0
    assert "Waiting for connections to close" in server.log.read_text(), "the stream had ended"
