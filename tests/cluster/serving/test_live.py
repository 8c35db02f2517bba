"""The gateway and two replicas, as clients and operators see them."""

import itertools

import httpx
import pytest

from benchmarks.cluster.nodes import samples, wait_for
from tests.cluster.serving.conftest import ADAPTERS
from tests.serving import tiny

pytestmark = [pytest.mark.slow, pytest.mark.nightly]


def tokens(response: httpx.Response) -> list[int]:
    assert response.status_code == 200, response.text
    return response.json()["choices"][0]["token_ids"]


def test_every_adapter_answers_as_in_peft(live, expected):
    for name, answers in expected.items():
        model = name or live.base.name
        got = [tokens(live.complete(model, prompt)) for prompt in tiny.PROMPTS[:2]]
        assert got == answers[:2], model


def test_a_stream_is_the_answer_in_parts(live):
    whole = live.complete("all-15", tiny.PROMPTS[0]).json()["choices"][0]["text"]
    response = live.complete("all-15", tiny.PROMPTS[0], stream=True)
    assert response.headers["content-type"].startswith("text/event-stream")
    events = [line for line in response.text.split("\n\n") if line]
    assert events[-1] == "data: [DONE]"
    assert len(events) > 5
    import json

    text = "".join(
        json.loads(event.removeprefix("data: "))["choices"][0]["text"] for event in events[:-1]
    )
    assert text == whole


def test_what_is_wrong_is_told_as_by_the_single_server(live):
    unknown = live.complete("nobody", "x")
    assert unknown.status_code == 404
    assert "nobody" in unknown.json()["error"]["message"]
    assert live.complete("attn-1", "x", max_tokens=-1).status_code == 400
    assert live.client.post("/v1/completions", content=b"{").status_code == 400
    assert live.client.get("/v1/nothing").status_code == 404
    too_large = live.client.post("/v1/completions", content=b" " * (9 * 2**20))
    assert too_large.status_code == 413


def test_a_tenant_is_held_to_its_adapters_by_the_gateway_and_the_replicas(live):
    assert live.complete("attn-1", "x", key="tenant").status_code == 200
    assert live.complete("mlp-3", "x", key="tenant").status_code == 404
    assert live.complete(live.base.name, "x", key="tenant").status_code == 404
    headers = {"Authorization": f"Bearer {live.keys['tenant']}"}
    models = live.client.get("/v1/models", headers=headers).json()["data"]
    assert {model["id"] for model in models} == {"attn-1@v1"}
    assert live.client.get("/admin/v1/status", headers=headers).status_code == 403


def test_a_stranger_gets_nowhere(live):
    with httpx.Client(base_url=live.nodes.url) as stranger:
        for path in ("/v1/models", "/admin/v1/status", "/metrics/targets"):
            assert stranger.get(path).status_code == 401
        assert stranger.get("/health").status_code == 200
        # What a gateway would send a replica means nothing to the gateway itself.
        forged = {"principal": "admin", "waited_seconds": 0}
        assert stranger.post("/answer", json=forged).status_code == 401


def test_requests_are_counted_once_and_engines_show_on_their_own_pages(live):
    before = live.value("propulsion_serve_requests_total", adapter="attn-1", outcome="ok")
    live.complete("attn-1", "x")
    after = live.value("propulsion_serve_requests_total", adapter="attn-1", outcome="ok")
    assert after == before + 1
    targets = live.client.get("/metrics/targets").json()
    assert len(targets) == 2
    pages = [httpx.get(f"http://{target['targets'][0]}/metrics").text for target in targets]
    assert {target["labels"]["role"] for target in targets} == {"replica"}
    names = {name for page in pages for name, _, _ in samples(page)}
    assert "propulsion_serve_requests_total" not in names
    assert {"propulsion_serve_ttft_seconds_count", "propulsion_serve_engine_up"} <= names
    assert "propulsion_serve_engine_up" not in live.client.get("/metrics").text


def test_an_adapters_requests_meet_where_it_is_held(live):
    for name in itertools.islice(itertools.cycle(ADAPTERS), 12):
        live.complete(name, "x", max_tokens=1)
    hits = live.value("propulsion_cluster_affinity_hits_total")
    misses = live.value("propulsion_cluster_affinity_misses_total")
    for _ in range(10):
        assert live.complete("key-3", "x", max_tokens=1).status_code == 200
    assert live.value("propulsion_cluster_affinity_hits_total") >= hits + 9
    assert live.value("propulsion_cluster_affinity_misses_total") <= misses + 1


def test_a_client_that_leaves_ends_its_request_at_the_replica(live):
    targets = [t["targets"][0] for t in live.client.get("/metrics/targets").json()]

    def running() -> float:
        pages = (httpx.get(f"http://{target}/metrics").text for target in targets)
        return sum(
            value
            for page in pages
            for name, _, value in samples(page)
            if name == "vllm:num_requests_running"
        )

    body = {"model": "attn-1", "prompt": "x", "max_tokens": 200, "ignore_eos": True}
    body |= {"stream": True, "n": 8}
    with live.client.stream("POST", "/v1/completions", json=body) as response:
        next(response.iter_raw())
    wait_for(lambda: running() == 0, 30)
    aborted = live.value("propulsion_serve_requests_total", adapter="attn-1", outcome="aborted")
    assert aborted == 1


def test_an_alias_that_moves_is_followed_by_every_replica_at_once(live, adapter_folders, expected):
    live.store.publish(adapter_folders["value-2"], "rolling", aliases=["prod"])
    live.store.publish(adapter_folders["up-15"], "rolling")
    answers = {"v1": expected["value-2"][0], "v2": expected["up-15"][0]}
    for version in ("v1", "v2", "v1", "v2"):
        path = "/admin/v1/adapters/rolling/aliases/prod"
        assert live.client.put(path, json={"version": version}).status_code == 200
        for _ in range(3):
            response = live.complete("rolling@prod", tiny.PROMPTS[0])
            assert response.headers["x-adapter-version"] == f"rolling@{version}"
            assert tokens(response) == answers[version]


def test_the_status_is_of_all_replicas_together(live):
    status = live.client.get("/admin/v1/status").json()
    assert status["host"]["capacity"] == 2 * 3
    assert status["engine"] == {"healthy": True, "restarts": 0}


def test_an_adapter_that_is_unloaded_leaves_every_replica(live):
    live.complete("mlp-3", "x")
    response = live.client.post("/admin/v1/adapters/mlp-3/unload", json={})
    assert response.status_code == 200, response.text
    misses = live.value("propulsion_cluster_affinity_misses_total")
    live.complete("mlp-3", "x")
    assert live.value("propulsion_cluster_affinity_misses_total") == misses + 1


def test_the_console_is_there(live):
    assert live.client.get("/console/").status_code == 200
