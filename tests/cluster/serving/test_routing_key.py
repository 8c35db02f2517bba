import json

import pytest

from cluster.serving.routing_key import model_key, request_key


def key_of(body: object, path: str = "/v1/completions", headers=()) -> str | None:
    return request_key(path, headers, json.dumps(body).encode(), "base")


@pytest.mark.parametrize("model", ["sst2", "sst2@v3", "sst2@prod"])
def test_all_versions_and_aliases_of_an_adapter_meet(model):
    assert key_of({"model": model}) == "sst2"


def test_a_blend_is_its_names_whatever_their_order_and_weights():
    assert key_of({"model": "b:0.3+a@v2"}) == key_of({"model": "a:0.9+b"}) == "a+b"


@pytest.mark.parametrize("model", ["base", "", "../etc", "a/b", 7, None, ["a"]])
def test_what_names_no_adapter_has_no_key(model):
    assert key_of({"model": model}) is None


@pytest.mark.parametrize("body", [b"", b"[1]", b"{", b"\xff", b"--boundary", b"{" * 100_000])
def test_a_body_that_is_no_json_object_is_left_to_the_engine(body):
    assert request_key("/v1/completions", (), body, "base") is None


def test_an_admin_call_goes_where_the_adapters_requests_go():
    assert key_of({}, "/admin/v1/adapters/sst2@v3/pin") == "sst2"
    assert key_of({"version": "v2"}, "/admin/v1/adapters/sst2/aliases/prod") == "sst2"


def test_admin_calls_for_no_adapter_meet_on_one_replica():
    key = key_of({}, "/admin/v1/adapters")
    assert key == key_of({}, "/admin/v1/status")
    assert key is not None
    assert model_key(key) is None


def test_sagemakers_header_counts_before_the_body():
    headers = [(b"x-amzn-sagemaker-adapter-identifier", b"boolq")]
    assert key_of({"model": "sst2"}, "/invocations", headers) == "boolq"


def test_what_an_engine_holds_has_the_key_of_the_requests_for_it():
    assert model_key("sst2@v3") == "sst2"
    assert model_key("a@v1:0.7+b@v2:0.3") == "a+b"
