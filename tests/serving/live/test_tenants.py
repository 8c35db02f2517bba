"""On no route can one tenant use, list or infer another's adapters, nor one without a role act."""

import json
from typing import Any

import httpx
import pytest

from tests.serving import tiny

pytestmark = pytest.mark.slow

MESSAGES = [{"role": "user", "content": "x"}]
# Every route that takes a model, with a body that is answered where the model is one's own.
BODIES: dict[str, dict[str, Any]] = {
    "/v1/completions": {"prompt": "x", "max_tokens": 1},
    "/v1/chat/completions": {"messages": MESSAGES, "max_tokens": 1},
    "/v1/chat/completions/batch": {"messages": [MESSAGES], "max_tokens": 1},
    "/v1/responses": {"input": "x", "max_output_tokens": 1},
    "/v1/messages": {"messages": MESSAGES, "max_tokens": 1},
    "/v1/messages/count_tokens": {"messages": MESSAGES},
    "/generative_scoring": {"query": "x", "items": ["y"], "label_token_ids": [1, 2]},
    "/invocations": {"prompt": "x", "max_tokens": 1},
    "/tokenize": {"prompt": "x"},
    "/detokenize": {"tokens": [1]},
}
# vLLM mounts it for every model that generates, and answers 501 for most: none here has the head.
NOT_SUPPORTED = {"/v1/systemone"}
# As long as `secret-plan`, so that even the lengths of answers can be compared.
NOWHERE = "nowhere-abc"
OWN_TO_EACH = ("x-request-id", "date")


def with_model(path: str, model: str) -> dict[str, Any]:
    return {"model": model, **BODIES[path]}


def told(response: httpx.Response, asked: str) -> tuple[int, str, dict[str, str]]:
    """All that a client learns from an answer, but for the name it asked for itself."""
    headers = {k: v for k, v in response.headers.items() if k not in OWN_TO_EACH}
    return response.status_code, response.text.replace(asked, "?"), headers


@pytest.fixture(scope="module")
def schema(live) -> dict[str, Any]:
    return live.clients["admin"].get("/openapi.json").json()


def test_these_tests_know_every_route_that_takes_a_model(live, schema):
    taking = {
        path
        for path, operations in schema["paths"].items()
        for operation in operations.values()
        if takes_model(operation.get("requestBody", {}), schema)
    }
    # It reads its body itself, so the schema does not tell.
    assert taking | {"/invocations"} == BODIES.keys() | NOT_SUPPORTED


def takes_model(body: Any, schema: dict[str, Any]) -> bool:
    text = json.dumps(body)
    referred = [name for name in schema["components"]["schemas"] if f'schemas/{name}"' in text]
    return any(
        "model" in schema["components"]["schemas"][name].get("properties", {}) for name in referred
    )


@pytest.mark.parametrize("path", BODIES)
def test_ones_own_adapter_answers_and_is_named(live, path):
    response = live.clients["a"].post(path, json=with_model(path, "all-15"))
    assert response.status_code == 200, response.text
    assert response.headers["X-Adapter-Version"] == "all-15@v1"


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize(
    "form", ["{}", "{}@v1", "{}@latest", "{}@v9", "all-15+{}", "{}:0.5+all-15:0.5", "{}:x"]
)
def test_anothers_adapter_is_as_one_that_is_not_there(live, path, form):
    # It is loaded, so an answer from what the engine holds would show.
    own = {"model": "secret-plan", "prompt": "x", "max_tokens": 1}
    assert live.clients["b"].post("/v1/completions", json=own).status_code == 200
    answers = []
    for name in ("secret-plan", NOWHERE):
        model = form.format(name)
        answers.append(told(live.clients["a"].post(path, json=with_model(path, model)), model))
    assert answers[0] == answers[1]
    # Of a weight that is none, the client itself is told, whoever it is.
    assert answers[0][0] == (400 if form == "{}:x" else 404)
    assert "x-adapter-version" not in answers[0][2]


def test_what_is_listed_is_ones_own(live):
    listed = {
        who: {model["id"] for model in live.clients[who].get("/v1/models").json()["data"]}
        for who in ("a", "b")
    }
    assert listed["a"] == {"tiny-base", "all-15@v1", "attn-1@v1"}
    assert listed["b"] == {"secret-plan@v1"}
    assert "tiny-base" not in live.clients["b"].get("/v1/models").text


@pytest.mark.parametrize("path", BODIES)
def test_a_key_without_the_base_is_not_answered_by_it(live, path):
    for model in ("tiny-base", "", None):
        body = BODIES[path] if model is None else with_model(path, model)
        response = live.clients["b"].post(path, json=body)
        # Some routes ask for a model before anything else.
        assert response.status_code in ((404,) if model else (404, 400)), (model, response.text)


@pytest.mark.parametrize("path", ["/metrics", "/metrics/", "/kv_event_sources"])
def test_what_tells_of_all_tenants_is_for_admins(live, path):
    for who, status in (("none", 401), ("a", 403), ("b", 403)):
        response = live.clients[who].get(path)
        assert response.status_code == status
        assert "secret-plan" not in response.text
    assert live.clients["admin"].get(path, follow_redirects=True).status_code == 200


def test_every_route_but_the_open_ones_asks_for_a_key(live, schema):
    opened = []
    for path, operations in schema["paths"].items():
        for method in operations:
            filled = path.replace("{", "").replace("}", "")
            for headers in ({}, {"Authorization": "Bearer pk-wrong"}):
                response = live.clients["none"].request(method, filled, headers=headers, json={})
                if response.status_code != 401:
                    opened.append(path)
    assert set(opened) == {"/health", "/ping"}
    # The console's page holds nothing; it asks for the key that its requests carry.
    assert live.clients["none"].get("/console/").status_code == 200


def test_every_admin_route_refuses_an_inference_key_and_changes_nothing(live, schema):
    routes = [
        (method, path.format(reference="all-15", name="all-15", alias="latest"))
        for path, operations in schema["paths"].items()
        if path.startswith("/admin/")
        for method in operations
    ]
    assert {method for method, _ in routes} == {"get", "post", "put", "delete"}
    before = live.store.aliases("all-15"), live.store.splits("all-15")
    bodies = {"put": {"version": "v1", "weights": {"v1": 1}}}
    for method, path in routes:
        for who, status in (("none", 401), ("a", 403), ("b", 403)):
            response = live.clients[who].request(method, path, json=bodies.get(method))
            assert response.status_code == status, (method, path, who)
            assert set(response.json()["error"]) == {"message", "type", "param", "code"}
    assert (live.store.aliases("all-15"), live.store.splits("all-15")) == before


@pytest.mark.parametrize("where", ["query", "cookie", "basic", "two headers", "api-key header"])
def test_a_key_counts_only_as_a_bearer_token(live, where):
    key = live.keys["admin"]
    options: dict[str, Any] = {
        "query": {"params": {"api_key": key, "key": key, "access_token": key}},
        "cookie": {"headers": {"Cookie": f"key={key}; Authorization=Bearer {key}"}},
        "basic": {"headers": {"Authorization": f"Basic {key}"}},
        "two headers": {
            "headers": [("Authorization", f"Bearer {key}"), ("Authorization", "Bearer x")]
        },
        "api-key header": {"headers": {"X-API-Key": key, "api-key": key}},
    }[where]
    assert live.clients["none"].get("/admin/v1/status", **options).status_code == 401


def test_no_key_is_in_a_log_a_metric_or_the_audit(live):
    """After the others: they have used every key, in every place a client could put it."""
    told = live.server.log.read_text() + live.server.log.with_name("audit").read_text()
    told += live.clients["admin"].get("/metrics").text
    assert '"key_id": "a"' in told or '"key_id":"a"' in told
    assert [who for who, key in live.keys.items() if key in told] == []
    assert [who for who, key in live.keys.items() if key[3:30] in told] == []


def test_a_streams_chunks_name_the_version_and_no_other_tenant(live, expected):
    body = {
        "model": "all-15",
        "prompt": tiny.PROMPTS[0],
        "max_tokens": tiny.MAX_TOKENS,
        "temperature": 0,
        "ignore_eos": True,
        "return_token_ids": True,
        "stream": True,
    }
    with live.clients["a"].stream("POST", "/v1/completions", json=body) as response:
        assert response.headers["X-Adapter-Version"] == "all-15@v1"
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert lines.pop() == "[DONE]"
    chunks = [json.loads(line) for line in lines]
    assert {chunk["model"] for chunk in chunks} == {"all-15@v1"}
    ids = [i for chunk in chunks for i in chunk["choices"][0]["token_ids"] or []]
    assert ids == expected["all-15"][0]
