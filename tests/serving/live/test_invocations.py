"""SageMaker's route, where vLLM takes the model from a header and forgets the body's."""

import pytest

from tests.serving import tiny

pytestmark = pytest.mark.slow

HEADER = "X-Amzn-SageMaker-Adapter-Identifier"


def invoke(live, who: str, model: str | None, headers: dict[str, str] | None = None):
    body = {
        "prompt": tiny.PROMPTS[0],
        "max_tokens": tiny.MAX_TOKENS,
        "temperature": 0,
        "ignore_eos": True,
        "return_token_ids": True,
    }
    if model is not None:
        body["model"] = model
    return live.clients[who].post("/invocations", json=body, headers=headers)


def test_the_model_in_the_body_answers(live, expected):
    for model, name in (("all-15", "all-15"), ("tiny-base", None), (None, None)):
        response = invoke(live, "a", model)
        assert response.status_code == 200, response.text
        assert response.json()["choices"][0]["token_ids"] == expected[name][0]


def test_sagemakers_header_names_the_adapter_where_it_is_sent(live, expected):
    response = invoke(live, "a", "tiny-base", {HEADER: "attn-1"})
    assert response.json()["choices"][0]["token_ids"] == expected["attn-1"][0]
    assert response.headers["X-Adapter-Version"] == "attn-1@v1"


@pytest.mark.parametrize("model", ["nobody", "secret-plan", "all-15+secret-plan", "日本", "é"])
def test_a_model_that_is_not_there_is_not_answered_by_the_base(live, model):
    for headers in (None, {HEADER: model} if model.isascii() else None):
        response = invoke(live, "a", model, headers)
        assert response.status_code == 404, response.text


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[" * 100_000, b"\xff\xfe", b'{"model": 1, "prompt": "x"}', b"[]", b"null"]
)
def test_a_malformed_body_is_the_clients_error(live, body):
    headers = {"Content-Type": "application/json"}
    response = live.clients["a"].post("/invocations", content=body, headers=headers)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["code"] == 400
