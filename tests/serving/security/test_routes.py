"""What each path asks of its caller."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.routing import compile_path

from serving.security.routes import BASE_PATHS, INFERENCE_PATHS, Access, access_of

ADMIN_PATHS = [
    "/",
    "/admin",
    "/admin/v1/status",
    "/admin/v1/adapters/a:0.7+b@prod:0.3/load",
    "/adapters",
    "/adapters/x",
    "/v1/load_lora_adapter",
    "/v1/unload_lora_adapter",
    "/v1/responses/resp_1",
    "/v1/responses/resp_1/cancel",
    "/inference/v1/generate",
    "/abort_requests",
    "/collective_rpc",
    "/server_info",
    "/reset_prefix_cache",
    "/sleep",
    "/wake_up",
    "/pause",
    "/update_weights",
    "/start_profile",
    "/fault_tolerance/apply",
    "/scale_elastic_ep",
    "/tokenizer_info",
    "/unheard-of",
]
ODD_PATHS = [
    "",
    "admin",
    "*",
    "http://host/admin",
    "//admin",
    "//v1/models",
    "/v1//models",
    "/v1/models//",
    "/admin/../v1/models",
    "/v1/../admin",
    "/v1/./models",
    "/console/../admin/v1/status",
    "/console/..",
    "/v1\\admin",
    "/v1/models\n",
    "/v1/models\r\nx",
    "/v1/mod\0els",
    "/v1/%2e%2e/admin",
    "/v1/models;%0a",
    "/v1/modèls",
    "/v1/ models",
    "/v1/models/\u2028",
    "/v1/models?x",
    "/v1/models#x",
]


def scope(path: str, method: str = "POST", **more) -> dict:
    return {"type": "http", "path": path, "method": method, "headers": [], **more}


@pytest.mark.parametrize("path", sorted(INFERENCE_PATHS))
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_inference_routes_ask_for_any_key(path: str, method: str) -> None:
    assert access_of(scope(path, method)) is Access.INFERENCE


@pytest.mark.parametrize("path", ADMIN_PATHS)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "OPTIONS", "HEAD"])
def test_what_no_list_names_asks_for_an_admin_key(path: str, method: str) -> None:
    assert access_of(scope(path, method)) is Access.ADMIN


@pytest.mark.parametrize("path", ["/V1/models", "/v1/Models", "/HEALTH", "/Console", "/v1/models/"])
def test_another_spelling_of_a_listed_path_is_not_that_path(path: str) -> None:
    assert access_of(scope(path, "GET")) is Access.ADMIN


@pytest.mark.parametrize("path", ODD_PATHS)
def test_odd_paths_are_malformed_for_everyone(path: str) -> None:
    assert access_of(scope(path, "GET")) is Access.MALFORMED


@pytest.mark.parametrize("raw", [b"/v1/models%2fadmin", b"/v1%2Fmodels", b"/v1/models%5cx"])
def test_an_encoded_separator_is_malformed_though_it_decodes_to_a_plain_path(raw: bytes) -> None:
    assert access_of(scope("/v1/models", raw_path=raw)) is Access.MALFORMED


@pytest.mark.parametrize(
    ("path", "open_to", "closed_to"),
    [
        ("/health", ["GET", "HEAD"], ["POST", "OPTIONS"]),
        ("/ping", ["GET", "HEAD", "POST"], ["DELETE"]),
        ("/metrics", ["GET", "HEAD"], ["POST"]),
        ("/metrics/", ["GET"], ["PUT"]),
        ("/console", ["GET", "HEAD"], ["POST"]),
        ("/console/app.js", ["GET", "HEAD"], ["POST", "DELETE"]),
    ],
)
def test_open_routes_are_open_by_method(path: str, open_to: list, closed_to: list) -> None:
    assert {access_of(scope(path, method)) for method in open_to} == {Access.OPEN}
    assert {access_of(scope(path, method)) for method in closed_to} == {Access.ADMIN}


def test_a_path_that_only_begins_like_an_open_one_is_closed() -> None:
    for path in ("/consolex", "/healthz", "/metricsx", "/metrics/x", "/ping/x"):
        assert access_of(scope(path, "GET")) is Access.ADMIN


def test_metrics_can_be_closed() -> None:
    assert access_of(scope("/metrics", "GET"), metrics_are_open=False) is Access.ADMIN


def test_a_websocket_opens_no_open_route_and_realtime_asks_for_the_base() -> None:
    socket = {"type": "websocket", "headers": []}
    assert access_of({**socket, "path": "/console/x"}) is Access.ADMIN
    assert access_of({**socket, "path": "/admin/v1/feed"}) is Access.ADMIN
    assert {access_of({**socket, "path": path}) for path in BASE_PATHS} == {Access.BASE}


def test_a_root_path_is_cut_off_as_the_router_does() -> None:
    assert access_of(scope("/api/v1/models"), root_path="/api") is Access.INFERENCE
    assert access_of(scope("/apiv1/models"), root_path="/api") is Access.ADMIN
    assert access_of(scope("/console/admin", "GET"), root_path="/console") is Access.ADMIN
    assert access_of(scope("/x/v1/models", root_path="/x")) is Access.INFERENCE
    assert access_of(scope("/v1/models"), root_path="/api") is Access.INFERENCE


@given(st.text(alphabet="/.%2fv1admn\\ \n\0é;AB", max_size=24))
def test_no_spelling_reaches_an_admin_route_as_anything_but_admin(text: str) -> None:
    path = "/" + text
    pattern, _, _ = compile_path("/admin/{rest:path}")
    if pattern.match(path):
        assert access_of(scope(path, "GET")) in (Access.ADMIN, Access.MALFORMED)
